"""Screening by successive halving: drop variants that are clearly worse after short trainings."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from det_losses.compare.budget import Budget
from det_losses.compare.plan import Plan
from det_losses.compare.runner import PlanRunner
from det_losses.compare.variants import Variant
from det_losses.engine.config import entries
from det_losses.errors import InputError
from det_losses.report import Study
from det_losses.report.formats import counted
from det_losses.statistics import Difference, Verdict

# (config, variants, folder, fraction of the full training) -> the differences
TrainRung = Callable[[Config, Sequence[Variant], Path, float], Verdict | None]
FRACTIONS = (0.25, 0.5)  # of the full training, one per rung
RISK = (
    "Screening trains each variant briefly and with one seed. It can drop a variant that learns "
    "slowly at first, or had an unlucky seed, but would be the best after a full training."
)
# Settings of a schedule that are numbers of epochs, apart from its milestones.
_LENGTHS = ("T_max", "begin", "end", "total_iters", "step_size")


@dataclass(frozen=True)
class Dropped:
    """A variant that was dropped by screening.

    Attributes:
        label: label of the variant.
        epochs: epochs of the rung after which it was dropped.
        difference: its difference to the best variant of that rung.
        metric: the metric of the difference.
    """

    label: str
    epochs: int
    difference: Difference
    metric: str

    def __str__(self) -> str:
        d, length = self.difference, counted(self.epochs, "epoch")
        return (
            f"Screening dropped {self.label} after {length}: {100 * d.value:+.1f} "
            f"{self.metric} [{100 * d.low:.1f}, {100 * d.high:.1f}] compared with "
            f"{d.second}, the best variant at that point."
        )


def shorten(cfg: Config, fraction: float) -> Config:
    """Return the config with fewer epochs, scaled schedules and one evaluation at the end.

    Raises:
        InputError: the config trains by iterations, or for too few epochs.
    """
    own = copy.deepcopy(cfg)
    train = own.train_cfg
    if not train.get("by_epoch") or train.max_epochs * fraction < 1:
        raise InputError(
            "--screen requires a training of at least 4 epochs (train_cfg.by_epoch, max_epochs)"
        )
    epochs = round(train.max_epochs * fraction)
    scale = epochs / train.max_epochs
    train.max_epochs = train.val_interval = epochs
    for scheduler in entries(own.get("param_scheduler")):
        if not scheduler.get("by_epoch", True):
            continue
        for key in _LENGTHS:
            if scheduler.get(key):
                scheduler[key] = max(1, round(scheduler[key] * scale))
        if "milestones" in scheduler:
            scheduler.milestones = sorted({max(1, round(m * scale)) for m in scheduler.milestones})
    return own


def screen(
    cfg: Config,
    variants: Sequence[Variant],
    baseline: str,
    root: Path,
    train: TrainRung,
) -> tuple[list[Variant], list[Dropped]]:
    """Train all variants for increasing lengths and drop those clearly worse than the best.

    A variant is clearly worse if the 95% interval of its paired difference to the best one, over
    images, is below zero. Each rung drops at most half of the variants, the worst first. The
    baseline is never dropped.

    Args:
        cfg: the config of the full training.
        variants: the variants of the comparison.
        baseline: label of the baseline.
        root: the directory of the comparison; a rung trains in ``screen/<epochs>_epochs``.
        train: trains the variants of a rung and returns their differences; None if the baseline has
            no result. A variant without a result is kept, so that the full training shows its
            error.

    Returns:
        The kept variants and the dropped ones.
    """
    kept, dropped = list(variants), []
    for fraction in FRACTIONS:
        if len(kept) < 3:
            break
        short = shorten(cfg, fraction)
        epochs = short.train_cfg.max_epochs
        verdict = train(short, kept, root / "screen" / f"{epochs}_epochs", fraction)
        worse = [] if verdict is None else _worse_than_best(verdict)
        worst = [d for d in worse if d.first != baseline][: len(kept) // 2]
        dropped += [Dropped(d.first, epochs, d, verdict.metric) for d in worst]
        labels = {d.first for d in worst}
        kept = [variant for variant in kept if variant.label not in labels]
    return kept, dropped


def rung_trainer(
    facts: Mapping[str, Any], seed: int, lock: int, jobs: int, budget: Budget | None
) -> TrainRung:
    """Return the function that trains one rung of the screening, with one seed.

    Args:
        facts: facts of the comparison, with its baseline and metric.
        seed: seed of all runs.
        lock: file descriptor of the comparison's lock.
        jobs: number of parallel runs.
        budget: time budget of the comparison, which includes the screening.
    """

    def train(
        cfg: Config, variants: Sequence[Variant], folder: Path, fraction: float
    ) -> Verdict | None:
        components = sorted({slot for variant in variants for slot in variant.factors})
        plan = Plan.of(cfg, components, variants, [seed])
        length = counted(cfg.train_cfg.max_epochs, "epoch")
        print(f"Screening {len(variants)} variants, {length} each", flush=True)
        own = budget.for_part(fraction) if budget else None
        rows = PlanRunner(cfg, plan, folder, lock, dict(facts), jobs, own).execute()
        done = {row["variant"] for row in rows if row["status"] == "done"}
        if facts["baseline"] not in done:
            print("The short training of the baseline failed; no variant is dropped")
            return None
        return Study.load([folder]).verdict(facts["metric"])

    return train


def _worse_than_best(verdict: Verdict) -> list[Difference]:
    """Return the differences to the best variant that exclude zero, the worst first."""
    best, *others = (summary.label for summary in verdict.summaries)
    found = [verdict.difference(label, best) for label in others]
    return sorted((d for d in found if d.high < 0), key=lambda d: d.value)
