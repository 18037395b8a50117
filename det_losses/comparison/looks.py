"""Looks at a comparison while it trains: which losses get further seeds, and when to stop."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from det_losses.comparison.runner import PlanRunner
from det_losses.engine.config import folds_of
from det_losses.errors import InputError, UserError, counted
from det_losses.files import finite
from det_losses.report import Study
from det_losses.report.answer import causes_of_low_ap, supports_ranking
from det_losses.report.formats import at_most, listed, points
from det_losses.statistics import LOOKS, Scores, Verdict, analyse, look_error, next_look
from det_losses.statistics.families import detectable_difference
from det_losses.statistics.maximum import Family
from det_losses.statistics.verdict import Precision

LOOK_SEEDS = tuple(range(max(LOOKS)))
# Of a difference in AP between two losses, measured on the quickstart: docs/noise.md.
SEED_SD = 0.010  # over seeds
IMAGE_SD = 0.035  # over images, times the square root of their number
_LEVEL = 0.95

_FEWEST_SEEDS = 3  # that a comparison needs

# label -> the seeds to train now; the runner that trains them
Start = Callable[[Mapping[str, Sequence[int]]], PlanRunner]


@dataclass(frozen=True)
class Step:
    """What follows from a look.

    Attributes:
        going: the variants that get further seeds; none if training stops.
        text: what was found and what happens next, in a line.
    """

    going: tuple[str, ...]
    text: str


def default_seeds(cfg: Config) -> list[int]:
    """Return the seeds of a comparison if none are given: with folds, the same number in each."""
    folds = folds_of(cfg)
    round_ = folds.count if folds else 1
    return list(range(round_ * math.ceil(_FEWEST_SEEDS / round_)))


def scheduled(seeds: Sequence[int]) -> list[int]:
    """Return the numbers of seeds at which a comparison with these seeds is looked at.

    Raises:
        InputError: there are fewer seeds than the first look needs.
    """
    found = [look for look in LOOKS if look <= len(seeds)]
    if not found:
        raise InputError(
            f"--until-decided looks at {listed([str(look) for look in LOOKS])} seeds; give at "
            f"least {min(LOOKS)} with --seeds, got {len(seeds)}, or leave --seeds out"
        )
    return found


def decide(verdict: Verdict, look: int, most: int) -> Step:
    """Return what follows from a look: who goes on, or that the comparison stops and why.

    It stops if one candidate for the best is left, if choosing the leader costs at most
    ``verdict.within``, if nothing can be tested, or after the last look.

    Args:
        verdict: of the look, with its share of the error.
        look: number of seeds.
        most: how many seeds there can be.
    """
    if not verdict.tested:
        return Step((), f"Look at {look} seeds: the variance over seeds cannot be estimated. Stop.")
    left, total = verdict.candidates, len(verdict.summaries)
    metric, leader = verdict.metric, verdict.leader
    if len(left) == 1:
        return Step((), f"Look at {look} seeds: {leader} is the best of {total}. Decided.")
    found = (
        f"Look at {look} seeds: {len(left)} of {total} may be the best ({listed(left)}); choosing "
        f"{leader} costs at most {at_most(verdict.regret)} {metric}."
    )
    margin = f"the {points(verdict.within)} {metric} of --within"
    if verdict.decided:
        return Step((), f"{found} That is within {margin}. Decided.")
    following = next_look(look)
    if following is None or following > most:
        return Step((), f"{found} That is more than {margin}. Not decided; this was the last look.")
    more = counted(following - look, "more seed")
    return Step(left, f"{found} Next: {more} for these {len(left)}, then a look at {following}.")


def until_decided(
    start: Start,
    root: Path,
    labels: Sequence[str],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Train all variants up to the first look, then the candidates from look to look.

    What a look finds is printed and stored. A later command takes the same looks at the same runs
    again, so it continues where an earlier one ended, also with further variants.

    Args:
        start: returns the runner of the runs to train now.
        root: the directory of the comparison.
        labels: the variants.
        seeds: the seeds, in the order in which they are added.
        settings: ``baseline``, ``metric``, ``within`` and ``resamples`` of the comparison.

    Returns:
        The rows of the results.
    """
    going: Sequence[str] = labels
    tried: set[tuple[str, int]] = set()
    taken: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for look in scheduled(seeds):
        own = {label: [s for s in seeds[:look] if (label, s) not in tried] for label in going}
        tried |= {(label, seed) for label, further in own.items() for seed in further}
        runner = start(own)
        runner.results.looks = taken or [{"seeds": look, "error": look_error(look)}]
        print(runner.forecast(), flush=True)
        rows = runner.execute()
        if _incomplete(rows, tried):
            print(f"The budget ended before the look at {look} seeds. Not decided.")
            break
        try:
            verdict = verdict_at(root, labels, seeds[:look], settings)
        except UserError as error:
            print(f"No look at {look} seeds: {error}. Not decided.")
            break
        step = decide(verdict, look, len(seeds))
        taken.append(_record(verdict, look))
        runner.results.looks = taken
        rows = runner.results.write()
        print(step.text, flush=True)
        going = step.going
        if not going:
            break
    return rows


def verdict_at(
    root: Path, labels: Sequence[str], seeds: Sequence[int], settings: Mapping[str, Any]
) -> Verdict:
    """Return the statistics of a look: of these variants with these seeds only.

    Raises:
        InputError: the results do not allow it.
    """
    study = Study.load([root], resamples=settings["resamples"])
    if not study.comparable:
        raise InputError(f"the baseline {study.baseline} has no finished run")
    if not supports_ranking(study):
        cause = causes_of_low_ap(study)[0].rstrip(".")
        raise InputError(f"the AP of all variants is too low to compare losses. {cause}")
    found = study.scores(settings["metric"])
    parts = {label: _only(found[label], seeds) for label in labels if label in found}
    scores = {label: part for label, part in parts.items() if part}
    if settings["baseline"] not in scores or len(scores) < 2:
        raise InputError("the baseline or all other variants have no finished run")
    return analyse(
        scores,
        settings["baseline"],
        len(study.truth.image_ids),
        metric=settings["metric"],
        within=settings["within"],
        look=len(seeds),
        folds=study.folds,
    )


def likely_to_find(
    root: Path, images: int, losses: int, seeds: int, look: int | None = None, metric: str = "AP"
) -> str | None:
    """Return which difference a comparison is likely to find.

    The noise is that of the stored runs. If they are too few, it is assumed to be that of AP in the
    quickstart, measured in docs/noise.md; the image part for the number of images. Such a forecast
    is rough, which the sentence says.

    Args:
        root: the directory of the comparison.
        images: number of evaluated images.
        losses: how many variants it will have.
        seeds: how many seeds each of them will have.
        look: the scheduled look at which it ends; None if seeds are fixed in advance.
        metric: the metric that is compared.

    Returns:
        None if there is nothing to compare.
    """
    if losses < 2 or seeds < 2 or images < 2:
        return None
    try:
        verdict = Study.load([root]).verdict(metric)
        known, level = verdict.precision, verdict.level
    except UserError:
        known, level = None, _LEVEL
    error = 1 - level if look is None else look_error(look, level)
    assumed = Precision(losses, SEED_SD**2, IMAGE_SD**2 / images, images, error)
    planned = replace(known, losses=losses, error=error) if known else assumed
    found = detectable_difference(*planned.with_seeds(seeds, Family.BASELINE))
    unit = metric.replace("/", " of ", 1)
    text = (
        f"{counted(seeds, 'seed')} are likely (80%) to find a difference of "
        f"{points(float(found))} {unit} to the baseline"
    )
    if known:
        return f"{text}, by the noise of the stored runs"
    more = "" if metric == "AP" else f", and {unit} may vary more than AP"
    return (
        f"{text}. This is rough: differences are assumed to vary as AP does in the quickstart (SD "
        f"{points(SEED_SD)} over seeds, {points(IMAGE_SD / images**0.5)} over {images} images). "
        f"Finished comparisons could find half to twice the forecast{more} "
        "(docs/noise.md)"
    )


def _only(scores: Scores, seeds: Sequence[int]) -> Scores | None:
    chosen = [index for index, seed in enumerate(scores.seeds) if seed in seeds]
    if not chosen:
        return None
    names = tuple(scores.seeds[index] for index in chosen)
    return Scores(names, scores.full[chosen], scores.resampled[:, chosen])


def _incomplete(rows: Sequence[Mapping[str, Any]], wanted: set[tuple[str, int]]) -> bool:
    ended = {(row["variant"], row["seed"]) for row in rows if row["status"] in ("done", "failed")}
    return not wanted <= ended


def _record(verdict: Verdict, look: int) -> dict[str, Any]:
    return finite(
        {
            "seeds": look,
            "error": verdict.error,
            "variants": [summary.label for summary in verdict.summaries],
            "candidates": list(verdict.candidates),
            "regret": verdict.regret,
        }
    )
