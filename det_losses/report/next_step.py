"""What to do next: which runs would decide a comparison, how long they take, and the command."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from det_losses.report.answer import margin, supports_ranking
from det_losses.report.formats import rough_duration
from det_losses.report.study import Study
from det_losses.statistics import Verdict

FIRST_LOOK = 3
"""Seeds that a first result needs."""

_MOST_COMMANDS = 3


@dataclass(frozen=True)
class NextStep:
    """What to do next.

    Attributes:
        text: one sentence; it ends with a colon if there are commands.
        commands: the commands that do it; none if they are unknown.
    """

    text: str
    commands: tuple[str, ...] = ()


def next_step(study: Study) -> NextStep | None:
    """Return what to do next; None if nothing is left to do, or nothing is known."""
    if len(study.labels) < 2 or (study.comparable and not supports_ranking(study)):
        return None
    verdict = study.verdict() if study.comparable else None
    if verdict is not None and verdict.tested and verdict.decided:
        return None
    if unfinished := [run for run in study.runs if run["status"] != "done"]:
        runs = "missing run" if len(unfinished) == 1 else f"{len(unfinished)} missing runs"
        return _step(study, f"Finish the {runs} first", "", _seconds(study, unfinished), None)
    if verdict is None:
        return None
    return _more_seeds(study, verdict)


def _more_seeds(study: Study, verdict: Verdict) -> NextStep | None:
    now = max(len(study.done(label)) for label in study.compared)
    if verdict.tested:
        wanted = verdict.seeds_to_decide()
        purpose = f"To tell {_them(verdict)} apart to within {margin(verdict)}"
        if wanted is None:
            return NextStep(f"{purpose}, evaluate more images: further seeds alone are not enough.")
    elif now < FIRST_LOOK:
        wanted, purpose = FIRST_LOOK, "For a first result"
    else:
        return None  # runs that are the same for all seeds
    more = max(1, wanted - now)
    seeds = sorted({run["seed"] for run in study.runs})
    seeds += [seed for seed in range(max(seeds) + more + 1) if seed not in seeds][:more]
    added = [run for label in study.compared for run in [{"variant": label}] * more]
    about = "about " if verdict.tested else ""
    what = f"{about}{more} more {'seed' if more == 1 else 'seeds'}"
    return _step(study, purpose, what, _seconds(study, added), seeds)


def _step(
    study: Study, purpose: str, what: str, seconds: float | None, seeds: Sequence[int] | None
) -> NextStep:
    commands = _commands(study, seeds)
    time = f"{rough_duration(seconds)} here" if seconds is not None and commands else ""
    details = ", ".join(filter(None, [what, time]))
    text = f"{purpose}: {details}" if what else f"{purpose}{f' ({time})' if time else ''}"
    return NextStep(text + (":" if commands else "."), commands)


def _them(verdict: Verdict) -> str:
    count = len(verdict.candidates)
    return "the two" if count == 2 else f"the {count}"


def _seconds(study: Study, runs: Sequence[dict[str, Any]]) -> float | None:
    """Return how long runs of these variants take here, from the times of finished runs."""
    times: dict[str, list[float]] = {}
    for run in study.runs:
        if run["status"] == "done" and run.get("train_seconds"):
            times.setdefault(run["variant"], []).append(run["train_seconds"])
    if not times or len(study.origins) != 1:
        return None
    means = {label: sum(own) / len(own) for label, own in times.items()}
    usual = sum(means.values()) / len(means)
    total = sum(means.get(run["variant"], usual) for run in runs)
    return total / min(_jobs(study), len(runs))


def _jobs(study: Study) -> int:
    """Return how many runs train at the same time, from the command."""
    found = re.search(r"--jobs[ =](\d+)", str(study.meta.get("command") or ""))
    return max(1, int(found[1])) if found else 1


def _commands(study: Study, seeds: Sequence[int] | None) -> tuple[str, ...]:
    """Return the commands of the comparison, with other seeds; none if it was merged."""
    if len(study.origins) != 1:
        return ()
    stored = study.meta.get("commands") or list(filter(None, [study.meta.get("command")]))
    extended = tuple(dict.fromkeys(with_seeds(text, seeds or [0]) for text in stored))
    if len(extended) > _MOST_COMMANDS:
        return ()
    if seeds is not None:
        return extended
    return tuple(stored[-1:]) if len(extended) == 1 else tuple(stored)


def with_seeds(command: str, seeds: Sequence[int]) -> str:
    """Return a command of compare with other seeds, and without a time budget.

    >>> with_seeds("det-losses compare x --seeds 0 1 --budget 2h --losses 'A(b=1)' B", [0, 1, 2])
    "det-losses compare x --losses 'A(b=1)' B --seeds 0 1 2"
    """
    kept, dropping = [], False
    for word in shlex.split(command):
        if word.startswith("--"):
            dropping = word.partition("=")[0] in ("--seeds", "--budget")
        if not dropping:
            kept.append(word)
    return shlex.join([*kept, "--seeds", *map(str, seeds)])
