"""Dropping the worse half of the variants after a short training."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from det_losses.comparison.budget import Budget
from det_losses.comparison.plan import Plan
from det_losses.comparison.process import Executor
from det_losses.comparison.runner import PlanRunner
from det_losses.comparison.variants import Variant
from det_losses.engine.config import entries
from det_losses.engine.schedule import is_by_epoch
from det_losses.errors import InputError, counted
from det_losses.report import Study
from det_losses.report.formats import points

# (config, variants, folder) -> label -> mean score
Train = Callable[[Config, Sequence[Variant], Path], Mapping[str, float]]
FRACTION = 0.5  # of the length of the whole training
KEEP = 0.5  # of the variants
# By simulation: normal scores with equal SD; a second halving would make it 35%.
RISK = (
    "Screening keeps the better half by rank, after a short training with one seed. A variant that "
    "learns slowly at first, or had an unlucky seed, can be dropped although it is the best: of 8 "
    "variants, one that is better than the others by one standard deviation over seeds is dropped "
    "in 18% of cases."
)
# Settings of a schedule that are numbers of epochs, apart from its milestones.
_LENGTHS = ("T_max", "begin", "end", "total_iters", "step_size")


@dataclass(frozen=True)
class Dropped:
    """A variant that was dropped by screening.

    Attributes:
        label: its label.
        length: length of the training after which it was dropped.
        score: its mean score then.
        rank: its rank then, from 1.
        of: number of ranked variants.
        metric: the metric of the score.
    """

    label: str
    length: str
    score: float
    rank: int
    of: int
    metric: str

    def __str__(self) -> str:
        return (
            f"Screening dropped {self.label} after {self.length}: "
            f"{points(self.score)} {self.metric}, rank {self.rank} of {self.of}."
        )


def shorten(cfg: Config) -> Config:
    """Return the config with half of its length, scaled schedules, one evaluation at the end.

    A warm-up in iterations keeps its length in a training by epochs.

    Raises:
        InputError: the training is too short, or has no known length.
    """
    own = copy.deepcopy(cfg)
    train = own.train_cfg
    key, unit = _length_of(own)
    whole = train.get(key)
    if not isinstance(whole, int) or whole * FRACTION < 1:
        raise InputError(f"--screen requires a training of at least 2 {unit}s (train_cfg.{key})")
    length = round(whole * FRACTION)
    scale = length / whole
    train[key] = train.val_interval = length
    for scheduler in entries(own.get("param_scheduler")):
        if is_by_epoch(own) and not scheduler.get("by_epoch", True):
            continue
        for key in _LENGTHS:
            if scheduler.get(key):
                scheduler[key] = max(1, round(scheduler[key] * scale))
        if "milestones" in scheduler:
            scheduler.milestones = sorted({max(1, round(m * scale)) for m in scheduler.milestones})
    return own


def _length_of(cfg: Config) -> tuple[str, str]:
    """Return the key of the length of the training, and its unit."""
    return ("max_epochs", "epoch") if is_by_epoch(cfg) else ("max_iters", "iteration")


def screen(
    cfg: Config,
    variants: Sequence[Variant],
    baseline: str,
    root: Path,
    metric: str,
    train: Train,
) -> tuple[list[Variant], list[Dropped]]:
    """Train all variants briefly, and keep the better half.

    The baseline always stays, because the others are compared with it. It is ranked like the others
    and takes one of the places if it is in the better half.

    Args:
        cfg: the config of the whole training.
        variants: what is compared.
        baseline: its label.
        root: the directory of the comparison; this trains in ``screen/<length>_epochs``
            or ``screen/<length>_iterations``.
        metric: the metric of the scores.
        train: trains the variants with that config in that directory, and returns their mean scores
            over the seeds they have. A variant without a score stays, so that the whole training
            shows its error.

    Returns:
        The kept variants and the dropped ones.
    """
    if len(variants) < 3:
        return list(variants), []
    short = shorten(cfg)
    key, unit = _length_of(short)
    length = short.train_cfg[key]
    scores = train(short, variants, root / "screen" / f"{length}_{unit}s")
    dropped = [
        Dropped(label, counted(length, unit), scores[label], rank, len(scores), metric)
        for rank, label in worse_half(scores)
        if label != baseline
    ]
    gone = {each.label for each in dropped}
    return [variant for variant in variants if variant.label not in gone], dropped


def worse_half(scores: Mapping[str, float]) -> list[tuple[int, str]]:
    """Return rank, from 1, and label of the variants that are not kept, the worst last.

    >>> worse_half({"A": 0.1, "B": 0.3, "C": 0.2})
    [(3, 'A')]
    """
    ranked = sorted(scores, key=lambda label: -scores[label])
    keep = math.ceil(len(ranked) * KEEP)
    return list(enumerate(ranked, start=1))[keep:]


def short_trainer(
    facts: Mapping[str, Any],
    seed: int,
    lock: int,
    jobs: int,
    budget: Budget | None,
    executor: Executor | None = None,
) -> Train:
    """Return the function that trains the variants briefly: a comparison with one seed.

    Args:
        facts: facts of the comparison, with its metric.
        seed: seed of all runs.
        lock: file descriptor of the comparison's lock.
        jobs: number of parallel runs.
        budget: time budget of the comparison, which includes the screening.
        executor: see :class:`~det_losses.comparison.runner.PlanRunner`.
    """

    def train(cfg: Config, variants: Sequence[Variant], folder: Path) -> Mapping[str, float]:
        components = sorted({slot for variant in variants for slot in variant.factors})
        plan = Plan.of(cfg, components, variants, [seed])
        key, unit = _length_of(cfg)
        length = counted(cfg.train_cfg[key], unit)
        print(f"Screening {len(variants)} variants, {length} each", flush=True)
        own = budget.for_part(FRACTION) if budget else None
        PlanRunner(cfg, plan, folder, lock, dict(facts), jobs, own, executor=executor).execute()
        return _mean_scores(folder, [v.label for v in variants], facts["metric"])

    return train


def _mean_scores(folder: Path, labels: Sequence[str], metric: str) -> dict[str, float]:
    """Return the means over seeds of the variants for which the metric is defined."""
    study = Study.load([folder])
    scores = {
        label: float(np.mean([study.full(run)[metric] for run in study.done(label)]))
        for label in labels
        if study.done(label)
    }
    return {label: score for label, score in scores.items() if not math.isnan(score)}
