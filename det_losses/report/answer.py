"""The answer of a comparison: which variant to use, in at most two sentences."""

import math
from collections.abc import Sequence

from det_losses.evaluation.diagnosis import diagnose
from det_losses.report.formats import at_most, decimals, interval, listed, points
from det_losses.report.runs import Runs
from det_losses.statistics import Verdict

TOO_LOW = 0.10  # AP below which differences are not informative about losses

_NAMED = 3  # variants that a sentence names; more are counted


def headline(study: Runs) -> str:
    """Return the answer in at most two sentences, or why there is none."""
    if study.interim:
        done = sum(run["status"] == "done" for run in study.runs)
        have = "has" if done == 1 else "have"
        return f"Interim report: {done} of {len(study.runs)} runs {have} finished."
    if not study.done(study.baseline):
        return f"No result yet: the baseline {study.baseline} has no finished run."
    if not study.comparable:
        return "No result: differences cannot be estimated from a single image."
    if not supports_ranking(study):
        return (
            "This comparison does not support a ranking: the best variant reaches AP "
            f"{points(_best_ap(study))}, below {points(TOO_LOW)}. {causes_of_low_ap(study)[0]}"
        )
    if study.planned_metric:
        return _exploratory(study)
    if study.fork:  # the answer is about a part of the training
        switched = f"With the loss switched after epoch {study.fork['epoch']}"
        return f"{switched} of {study.fork['epochs']}: {answer(study.verdict())}"
    return answer(study.verdict())


def _exploratory(study: Runs) -> str:
    """Return what a metric shows that was chosen when the results were known: no decision."""
    verdict = study.verdict()
    scored = [each for each in verdict.summaries if not math.isnan(each.mean)]
    if len(scored) < 2 or not verdict.tested:  # which decide nothing in any case
        return answer(verdict)
    first = max(scored, key=lambda each: each.mean)
    return (
        f"Exploratory: {unit(verdict)} was chosen after the training, which was planned for "
        f"{study.planned_metric}. {first.label} has the highest mean, {points(first.mean)}; to "
        f"decide by this metric, start a comparison with --metric {verdict.metric!r} on new seeds."
    )


def supports_ranking(study: Runs) -> bool:
    """Return whether the variants are comparable, all runs ended and the best AP is not too low."""
    return study.comparable and not study.interim and not _best_ap(study) < TOO_LOW


def causes_of_low_ap(study: Runs) -> list[str]:
    """Return why the best variant has so low an AP, the most probable cause first."""
    means = mean_aps(study)
    best = max(means, key=lambda label: max(means[label], -1.0), default=study.baseline)
    history = [line for run in study.done(best)[:1] for line in study.history(run)]
    return diagnose(history, study.meta.get("data_notes") or {})


def mean_aps(study: Runs) -> dict[str, float]:
    """Return the mean AP of each variant that is compared."""
    return {label: float(own.full.mean()) for label, own in study.scores("AP").items()}


def _best_ap(study: Runs) -> float:
    """Return the AP of the best variant; NaN if it is undefined for all."""
    return max((value for value in mean_aps(study).values() if value >= 0), default=math.nan)


def answer(verdict: Verdict) -> str:
    """Return which variants to use, and what is known about the others.

    All statements hold simultaneously at the verdict's level: the candidates and regret bounds are
    those of one family of intervals (Hsu's comparisons with the best).
    """
    scored = [s.label for s in verdict.summaries if not math.isnan(s.mean)]
    if len(verdict.summaries) == 1:
        return _alone(verdict)
    if len(scored) < 2:
        return f"{unit(verdict)} is undefined on this data, so the variants cannot be compared."
    if not verdict.tested:
        return _untested(verdict)
    excluded = [label for label in scored if label not in verdict.regrets]
    if len(verdict.candidates) == 1:
        sentences = [f"Use {verdict.leader}", _better(verdict, excluded)]
    elif len(verdict.interchangeable) > 1:
        sentences = [_equivalent(verdict), _worse(verdict, excluded)]
    elif verdict.decided:
        sentences = [_nearly_best(verdict), _worse(verdict, excluded)]
    elif excluded:
        worse = f"{_worse(verdict, excluded)}; {_cost(verdict)}"
        sentences = [f"Use {alternatives(verdict.candidates)}", worse]
    else:
        sentences = [_undecided(verdict), _sentence_case(_cost(verdict, f" ({_level(verdict)})"))]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def alternatives(labels: Sequence[str]) -> str:
    """Return the first of several labels as alternatives.

    >>> alternatives(["a", "b", "c"]), alternatives(["a", "b", "c", "d"])
    ('a, b or c', 'a, b or one of 2 others')
    """
    if len(labels) > _NAMED:
        labels = [*labels[: _NAMED - 1], f"one of {len(labels) - _NAMED + 1} others"]
    *others, last = labels
    return f"{', '.join(others)} or {last}" if others else last


def unit(verdict: Verdict) -> str:
    """Return the metric as the unit of a difference: "AP", "AP of traffic light"."""
    return verdict.metric.replace("/", " of ", 1)


def margin(verdict: Verdict) -> str:
    """Return the difference that does not matter: "1 AP"."""
    return f"{100 * verdict.within:.3g} {verdict.metric.partition('/')[0]}"


def _alone(verdict: Verdict) -> str:
    mean = verdict.summaries[0].mean
    score = "undefined" if math.isnan(mean) else points(mean)
    return (
        f"{unit(verdict)} of {verdict.baseline} is {score}. "
        "There is no other variant to compare it with."
    )


def _untested(verdict: Verdict) -> str:
    if any(pair.seeds > 1 for pair in verdict.pairs):
        return (
            "The runs of each variant are the same for all seeds, so they cannot show which "
            "variant is better."
        )
    return (
        "One seed cannot show which variant is better: the variation between trainings is "
        "unknown, and another seed may reverse the order."
    )


def _better(verdict: Verdict, excluded: Sequence[str]) -> str:
    """Return what the single candidate is better than, and its gain over the baseline."""
    leader, base = verdict.leader, verdict.baseline
    level = _level(verdict)
    if len(excluded) == 1:
        return f"It is better than {excluded[0]}{_gain(verdict, excluded[0])} ({level})"
    text = f"It is better than {_named(excluded, 'all')} ({level})"
    if leader == base:
        return f"{text}; it is the baseline"
    gain = _gain(verdict, base)
    return (
        f"{text}; the gain over the baseline {base} is{gain.removeprefix(' by')}" if gain else text
    )


def _gain(verdict: Verdict, other: str) -> str:
    """Return " by 1.3 AP [0.4, 2.2]", if that interval excludes zero."""
    to_baseline = (d for d in verdict.against_baseline if d.first == verdict.leader)
    found = next(to_baseline, None) if other == verdict.baseline else None
    found = found or verdict.difference(verdict.leader, other)
    if not verdict.differs(found):
        return ""
    value = points(found.value, decimals(found.low, found.high))
    return f" by {value} {unit(verdict)} {interval(found.low, found.high)}"


def _equivalent(verdict: Verdict) -> str:
    """Return that several candidates are within the margin.

    The best is a candidate, and none of these is further from it than the margin. So no two of
    them are further apart.
    """
    labels = verdict.interchangeable
    choose = "either" if len(labels) == 2 else "any of them"
    return (
        f"{_named(labels)} are within {margin(verdict)} of each other ({_level(verdict)}): "
        f"choose {choose}"
    )


def _nearly_best(verdict: Verdict) -> str:
    return (
        f"Use {verdict.leader}: no other variant is more than {_regret(verdict)} better "
        f"({_level(verdict)})"
    )


def _undecided(verdict: Verdict) -> str:
    labels = verdict.candidates
    if len(labels) == 2:
        return f"{labels[0]} and {labels[1]} cannot be told apart yet"
    return f"None of the {len(labels)} variants can be excluded: each may be the best"


def _cost(verdict: Verdict, level: str = "") -> str:
    if verdict.regret >= 1:
        return "there are too few seeds to say what a wrong choice costs"
    return f"choosing {verdict.leader} costs at most {_regret(verdict)}{level}"


def _regret(verdict: Verdict) -> str:
    return f"{at_most(verdict.regret)} {unit(verdict)}"


def _worse(verdict: Verdict, excluded: Sequence[str]) -> str:
    if not excluded:
        return ""
    verb = "is" if len(excluded) == 1 else "are"
    return f"{_named(excluded, 'The other')} {verb} worse than the best ({_level(verdict)})"


def _named(labels: Sequence[str], many: str = "") -> str:
    """Return labels as an enumeration; a long one as its first labels or as a count."""
    if len(labels) <= _NAMED:
        return listed(labels)
    if many:
        return f"{many} {len(labels)}" + (" others" if many == "all" else "")
    return f"{', '.join(labels[:2])} and {len(labels) - 2} others"


def _level(verdict: Verdict) -> str:
    return f"{100 * verdict.level:.3g}%"


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]
