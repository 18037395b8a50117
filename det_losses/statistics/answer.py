"""A verdict in words: one sentence with the answer, and what to be careful about."""

import math
from collections.abc import Sequence

from scipy.special import nctdtrinc, stdtrit

from det_losses.statistics.paired import POWER, Difference
from det_losses.statistics.verdict import Verdict

_NAMED = 3
"""Variants that a clause names with their numbers; the others are counted."""
_FEW_IMAGES = 100


def answer(verdict: Verdict) -> str:
    """Return the answer in one sentence: what beats the baseline, and what cannot be told apart.

    Differences are in points of the metric (value x 100), with their intervals. Where nothing
    differs, the sentence says which true difference would have been found with 80% power: for the
    test that the headline makes, so with Holm's correction for its first step and exact by the
    noncentral t, and therefore above `Difference.detectable`, which is of one test.
    """
    unknown = [d.first for d in verdict.against_baseline if math.isnan(d.p)]
    known = [d for d in verdict.against_baseline if not math.isnan(d.p)]
    if not verdict.against_baseline:
        return _alone(verdict)
    if not known:
        return f"{_unit(verdict)} cannot be compared on this data."
    clauses = _findings(verdict, known)
    if unknown:
        clauses.append(f"there is no {_unit(verdict)} to compare for {_names(unknown)}")
    if all(pair.seeds == 1 for pair in verdict.pairs):
        clauses.append("seeds were not varied, so this says nothing about another training")
    sentence = "; ".join(clause for clause in clauses if clause)
    return f"{sentence}."


def caution(verdict: Verdict) -> list[str]:
    """Return plain sentences on what so few seeds or images cannot say; empty where all is well."""
    sentences = []
    seeds = {difference.seeds for difference in verdict.pairs}
    if seeds == {1}:
        sentences.append(
            "With one seed the intervals are about other images only: how much the result changes "
            "from training to training is unknown, and another seed may turn the order round. "
            "Run at least three seeds."
        )
    elif 1 in seeds:
        sentences.append(
            "Some variants have one seed in common: their intervals take the spread between "
            "trainings from the variants that have more."
        )
    if 2 in seeds:
        sentences.append(
            "With two seeds the spread between trainings is known from a single difference, so "
            "intervals are very wide or, by luck, too narrow (simulated: up to 13% false alarms "
            "instead of 5%). Run at least three seeds."
        )
    if len({summary.seeds for summary in verdict.summaries} | seeds) > 1:
        sentences.append(
            "Not all variants have the same seeds: a difference is over the seeds that both have, "
            "so it may not equal the difference of the two means."
        )
    if verdict.images < _FEW_IMAGES:
        sentences.append(
            f"Only {verdict.images} images were evaluated: intervals that come from resampling so "
            "few are rough, above all for rare classes."
        )
    return sentences


def _alone(verdict: Verdict) -> str:
    mean = verdict.summaries[0].mean
    score = f"no {_unit(verdict)}" if math.isnan(mean) else f"{_points(mean)} {_unit(verdict)}"
    return f"{verdict.baseline} has {score}; there is nothing to compare it with."


def _findings(verdict: Verdict, known: Sequence[Difference]) -> list[str]:
    found = sorted((d for d in known if verdict.differs(d)), key=lambda d: -abs(d.value))
    winners = [d for d in found if d.value > 0]
    behind = [d for d in found if d.value < 0]
    similar = [d.first for d in known if not verdict.differs(d)]
    base = verdict.baseline
    if not found:
        return [_nothing(verdict, known), _beyond_baseline(verdict)]
    if not winners and len(known) > 1:
        return [f"Nothing beats {base}: {_behind(verdict, behind, 'it')}", _similar(similar, "it")]
    return [
        _listed(verdict, winners, f"beats {base} by", f"beat {base}"),
        _among(verdict, winners),
        _similar(similar, base),
        _behind(verdict, behind, base),
    ]


def _behind(verdict: Verdict, behind: Sequence[Difference], base: str) -> str:
    return _listed(verdict, behind, f"is behind {base} by", f"are behind {base}")


def _listed(verdict: Verdict, found: Sequence[Difference], one: str, many: str) -> str:
    """Return such as "A beats Z by 1.3 AP [...]" or "A (1.3 AP [...]) and 5 more beat Z"."""
    if not found:
        return ""
    if len(found) == 1:
        return f"{found[0].first} {one} {_amount(verdict, found[0])}"
    parts = [f"{d.first} ({_amount(verdict, d)})" for d in found[:_NAMED]]
    more = len(found) - _NAMED
    return f"{_names([*parts, f'{more} more'] if more > 0 else parts)} {many}"


def _among(verdict: Verdict, winners: Sequence[Difference]) -> str:
    """Return whether the first of several winners is ahead of the others."""
    if len(winners) < 2:
        return ""
    best, *others = [d.first for d in winners]
    equals = [label for label in others if not verdict.differs(verdict.difference(best, label))]
    if not equals:
        return f"{best} is also ahead of {others[0] if len(others) == 1 else 'the other winners'}"
    names = _names(equals) if len(equals) <= _NAMED else f"{len(equals)} other winners"
    return f"{best} cannot be told apart from {names}"


def _similar(labels: Sequence[str], base: str) -> str:
    if not labels:
        return ""
    names = _names(labels) if len(labels) <= _NAMED + 1 else f"{len(labels)} others"
    return f"{names} cannot be told apart from {base} on this data"


def _nothing(verdict: Verdict, known: Sequence[Difference]) -> str:
    """Return that no variant differs from the baseline, and what would have been found."""
    unit, base = _unit(verdict), verdict.baseline
    found = max(_sensitivity(verdict, d, len(known)) for d in known)
    if len(known) == 1:
        sentence = f"{known[0].first} cannot be told apart from {base} on this data"
        reason = f": the difference is {_amount(verdict, known[0])}, and one"
    else:
        sentence = f"None of the {len(known)} others can be told apart from {base} on this data"
        reason = "; a difference"
    if found == 0:
        return f"{sentence}: the {unit} is the same"
    if found < 1:
        return f"{sentence}{reason} of {_points(found)} {unit} would have been found with 80% power"
    return f"{sentence}; even a very large difference would have been missed"


def _beyond_baseline(verdict: Verdict) -> str:
    """Return the clearest difference between two others, where none from the baseline is clear."""
    found = [pair for pair in verdict.pairs if verdict.differs(pair)]
    if not found:
        return ""
    widest = max(found, key=lambda pair: abs(pair.value))
    if widest.value < 0:
        widest = verdict.difference(widest.second, widest.first)
    return f"but {widest.first} beats {widest.second} by {_amount(verdict, widest)}"


def _sensitivity(verdict: Verdict, difference: Difference, tests: int) -> float:
    """Return the true difference that Holm's first step finds with 80% power, by noncentral t."""
    critical = stdtrit(difference.df, 1 - (1 - verdict.level) / (2 * tests))
    return float(nctdtrinc(difference.df, 1 - POWER, critical)) * difference.se


def _amount(verdict: Verdict, difference: Difference) -> str:
    """Return such as "1.3 AP [0.4, 2.2]"; of a variant that is behind, how far it is behind."""
    value, low, high = difference.value, difference.low, difference.high
    if verdict.differs(difference) and value < 0:
        value, low, high = -value, -high, -low
    digits = 1
    while digits < 3 and verdict.differs(difference) and round(100 * low, digits) == 0:
        digits += 1
    numbers = (_points(number, digits) for number in (value, low, high))
    return "{} {unit} [{}, {}]".format(*numbers, unit=_unit(verdict))


def _points(value: float, digits: int = 1) -> str:
    return f"{round(100 * value, digits) + 0.0:.{digits}f}"


def _unit(verdict: Verdict) -> str:
    return verdict.metric.replace("/", " of ", 1)


def _names(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
