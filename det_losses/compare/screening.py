"""Dropping variants that are clearly behind after a short training, by successive halving."""

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
from det_losses.errors import InputError
from det_losses.report import Study
from det_losses.report.formats import counted
from det_losses.statistics import Difference, Verdict

# (config, variants, folder, fraction of the whole training) -> the differences
Train = Callable[[Config, Sequence[Variant], Path, float], Verdict | None]
FRACTIONS = (0.25, 0.5)  # of the whole training, one after the other
RISK = (
    "Screening trains each variant briefly and with one seed. A variant that learns slowly at "
    "first, or had an unlucky seed, can be dropped although it would lead after a full training."
)
# Settings of a schedule that are numbers of epochs, beside its milestones.
_LENGTHS = ("T_max", "begin", "end", "total_iters", "step_size")


@dataclass(frozen=True)
class Dropped:
    """A variant that a screening left out.

    Attributes:
        label: its label.
        epochs: epochs of the training after which it was dropped.
        difference: its difference from the best variant of that training.
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
            f"{self.metric} [{100 * d.low:.1f}, {100 * d.high:.1f}] against {d.second}, "
            "the best at that point."
        )


def shorten(cfg: Config, fraction: float) -> Config:
    """Return the config with a fraction of its epochs, scaled schedules, one evaluation at the end.

    Raises:
        InputError: it trains by iterations, or for too few epochs.
    """
    own = copy.deepcopy(cfg)
    train = own.train_cfg
    if not train.get("by_epoch") or train.max_epochs * fraction < 1:
        raise InputError(
            "--screen needs a training of at least 4 epochs (train_cfg.by_epoch, max_epochs)"
        )
    epochs = round(train.max_epochs * fraction)
    scale = epochs / train.max_epochs
    train.max_epochs = train.val_interval = epochs
    schedulers = own.get("param_scheduler") or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
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
    train: Train,
) -> tuple[list[Variant], list[Dropped]]:
    """Train all variants for longer and longer, and drop those clearly behind the best one.

    Clearly behind: the 95% interval of the paired difference over images lies below zero. Each rung
    drops at most half of the variants, the worst ones; the baseline always stays.

    Args:
        cfg: the config of the whole training.
        variants: what is compared.
        baseline: its label.
        root: the directory of the comparison; a rung trains in ``screen/<epochs>_epochs``.
        train: trains the variants with that config, whose length is that fraction, in that
            directory, and returns the differences; None if the baseline has no result. A variant
            without a result stays, so that the whole training shows its error.

    Returns:
        The variants that stay, and those that were dropped.
    """
    left, dropped = list(variants), []
    for fraction in FRACTIONS:
        if len(left) < 3:
            break
        short = shorten(cfg, fraction)
        epochs = short.train_cfg.max_epochs
        verdict = train(short, left, root / "screen" / f"{epochs}_epochs", fraction)
        behind = [] if verdict is None else _behind_the_best(verdict)
        going = [d for d in behind if d.first != baseline][: len(left) // 2]
        dropped += [Dropped(d.first, epochs, d, verdict.metric) for d in going]
        gone = {d.first for d in going}
        left = [variant for variant in left if variant.label not in gone]
    return left, dropped


def rung_trainer(
    facts: Mapping[str, Any], seed: int, lock: int, jobs: int, budget: Budget | None
) -> Train:
    """Return the function that trains a rung of the screening: a comparison with one seed.

    Args:
        facts: of the whole comparison, with its baseline and metric.
        seed: of all runs.
        lock: file descriptor of the comparison's lock.
        jobs: runs at the same time.
        budget: of the whole comparison, which includes its screening.
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
            print("The short training of the baseline has no result; nothing is dropped")
            return None
        return Study.load([folder]).verdict(facts["metric"])

    return train


def _behind_the_best(verdict: Verdict) -> list[Difference]:
    """Return the differences from the best variant that exclude zero, the worst first."""
    best, *others = (summary.label for summary in verdict.summaries)
    found = [verdict.difference(label, best) for label in others]
    return sorted((d for d in found if d.high < 0), key=lambda d: d.value)
