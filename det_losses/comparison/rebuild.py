"""Rebuild the files of a comparison that are missing or damaged, without training."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from det_losses.comparison.plan import Plan, stored_results
from det_losses.comparison.preflight import describe_data
from det_losses.comparison.results import Results, store_truth
from det_losses.comparison.runner import locked
from det_losses.errors import UserError
from det_losses.files import RESULTS_FILE, TRUTH_FILE, read_whole_json


def rebuild(root: Path) -> list[str]:
    """Rebuild results.json from the plan and the runs, and ground_truth.json from the data.

    Args:
        root: the directory of the comparison.

    Returns:
        A sentence for each rebuilt file. An empty list if both files are whole, or if plan.json is
        not, from which they are rebuilt.

    Raises:
        UserError: the validation data cannot be read, but is needed, or it has changed.
    """
    plan = Plan.load(root)
    lost = [name for name in (RESULTS_FILE, TRUTH_FILE) if read_whole_json(root / name) is None]
    if plan is None or not lost:
        return []
    facts = _facts(plan, TRUTH_FILE in lost)
    with locked(root):
        if RESULTS_FILE in lost:
            first = {"baseline": plan.variants[0].label, "metric": "AP"}
            Results(plan, root, {**first, **facts}).write()
        else:
            store_truth(root / TRUTH_FILE, facts, stored_results(root)[0])
    return [f"{root / name} was missing or damaged; it was rebuilt" for name in lost]


def _facts(plan: Plan, needed: bool) -> dict[str, Any]:
    """Return the facts about the data; without it nothing, unless they are needed."""
    try:
        return describe_data(Config(plan.config))
    except UserError:
        if needed:
            raise
        return {}
