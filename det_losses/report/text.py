"""The sentences of a report: title, result, cautions, power and methods."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from det_losses.report.formats import counted, decimals, interval, listed, points
from det_losses.report.section import Section
from det_losses.report.stored import missing_detections
from det_losses.report.study import Study
from det_losses.statistics import Difference, Verdict, detectable_after_holm

TOO_LOW = 0.10  # AP below which differences are not informative about losses

_NAMED = 3  # variants that a sentence names; the others are counted
_FEW_IMAGES = 100
_TOLERANCE = 5e-4  # between a run's recorded AP and the AP of its detections


def title(study: Study) -> str:
    """Return a title with the compared slots and the detector."""
    components, detector = study.meta.get("components"), study.meta.get("detector")
    if components and detector:
        return f"Comparison of {listed(components)} in {detector}"
    return f"Comparison of variants of {detector}" if detector else "Comparison of detections"


def subtitle(study: Study) -> str:
    """Return the numbers of variants, runs, images and boxes."""
    done = sum(run["status"] == "done" for run in study.runs)
    seeds = sorted({run["seed"] for run in study.runs})
    boxes = int((~study.truth.crowds).sum())
    parts = [
        counted(len(study.labels), "variant"),
        f"{done} of {len(study.runs)} runs done",
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}",
        counted(len(study.truth.image_ids), "image"),
        f"{counted(boxes, 'box')} of {counted(len(study.truth.names), 'class')}",
        (study.meta.get("finished") or "").partition("T")[0],
    ]
    return " · ".join(part for part in parts if part)


def headline(study: Study) -> str:
    """Return the result in a few sentences, or why there is none."""
    if not study.done(study.baseline):
        return f"No result yet: the baseline {study.baseline} has no finished run."
    if not study.comparable:
        return "No result: differences cannot be estimated from a single image."
    if not supports_ranking(study):
        return (
            "This comparison does not support a ranking: the best variant reaches AP "
            f"{points(_best_ap(study))}, below {points(TOO_LOW)}. Train longer, on more images or "
            "on fewer classes."
        )
    return answer(study.verdict())


def supports_ranking(study: Study) -> bool:
    """Return whether the variants are comparable and the best AP is not too low."""
    return study.comparable and not _best_ap(study) < TOO_LOW


def _best_ap(study: Study) -> float:
    """Return the AP of the best variant; NaN if it is undefined for all."""
    return max((value for value in _means(study).values() if value >= 0), default=math.nan)


def weak_baseline(study: Study) -> str | None:
    """Return a caution if the baseline has a low AP, but not all variants have."""
    if not supports_ranking(study):
        return None
    value = _means(study)[study.baseline]
    if math.isnan(value) or value >= TOO_LOW:
        return None
    return (
        f"The baseline {study.baseline} reaches only AP {points(value)}, below {points(TOO_LOW)}. "
        "Differences to it are not informative; choose another one with --baseline."
    )


def _means(study: Study) -> dict[str, float]:
    return {label: float(own.full.mean()) for label, own in study.scores("AP").items()}


# The result


def answer(verdict: Verdict) -> str:
    """Return which variants are better or worse than the baseline, with intervals in points.

    If no variant differs, the text gives the true difference that would be detected with 80% power
    by the headline's own test. This test includes the first step of Holm's correction, so the
    difference is larger than :attr:`Difference.detectable`, which is for a single test.
    """
    known = [d for d in verdict.against_baseline if not math.isnan(d.p)]
    unknown = [d.first for d in verdict.against_baseline if math.isnan(d.p)]
    if not verdict.against_baseline:
        return _baseline_only(verdict)
    if not known:
        return f"{_unit(verdict)} is undefined on this data, so the variants cannot be compared."
    sentences = _findings(verdict, known)
    if unknown:
        sentences.append(f"{_unit(verdict)} is undefined for {listed(unknown)}")
    if all(pair.seeds == 1 for pair in verdict.pairs):
        sentences.append(
            "Each variant was trained with one seed, so the variance between trainings is unknown"
        )
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def _baseline_only(verdict: Verdict) -> str:
    mean = verdict.summaries[0].mean
    score = "undefined" if math.isnan(mean) else points(mean)
    return (
        f"{_unit(verdict)} of {verdict.baseline} is {score}. "
        "There is no other variant to compare it with."
    )


def _findings(verdict: Verdict, known: Sequence[Difference]) -> list[str]:
    found = sorted((d for d in known if verdict.differs(d)), key=lambda d: -abs(d.value))
    better = [d for d in found if d.value > 0]
    worse = [d for d in found if d.value < 0]
    similar = [d.first for d in known if not verdict.differs(d)]
    if not found:
        return [*_no_difference(verdict, known), _largest_other_difference(verdict)]
    none = f"No variant was found to be better than {verdict.baseline}"
    return [
        _significant(verdict, better, "better"),
        _best_against_others(verdict, better),
        "" if better or len(known) == 1 else none,
        _undetected(similar, verdict.baseline),
        _significant(verdict, worse, "worse"),
    ]


def _significant(verdict: Verdict, found: Sequence[Difference], how: str) -> str:
    """Return "A is better than Z by 1.3 AP [...]" or "A (1.3 AP [...]) and 5 more are better"."""
    if not found:
        return ""
    base = verdict.baseline
    if len(found) == 1:
        return f"{found[0].first} is {how} than {base} by {_amount(verdict, found[0])}"
    parts = [f"{d.first} ({_amount(verdict, d)})" for d in found[:_NAMED]]
    more = len(found) - _NAMED
    return f"{listed([*parts, f'{more} more'] if more > 0 else parts)} are {how} than {base}"


def _best_against_others(verdict: Verdict, better: Sequence[Difference]) -> str:
    """Return how the best of several better variants compares with the others of them."""
    if len(better) < 2:
        return ""
    best, *others = [d.first for d in better]
    equals = [label for label in others if not verdict.differs(verdict.difference(best, label))]
    if not equals:
        names = listed(others) if len(others) <= _NAMED else f"the other {len(others)} of them"
        return f"{best} is also better than {names}"
    names = listed(equals) if len(equals) <= _NAMED else f"{len(equals)} of them"
    return f"No difference to {best} was detected for {names}"


def _undetected(labels: Sequence[str], base: str) -> str:
    if not labels:
        return ""
    names = listed(labels) if len(labels) <= _NAMED + 1 else f"{len(labels)} other variants"
    return f"No difference to {base} was detected for {names}"


def _no_difference(verdict: Verdict, known: Sequence[Difference]) -> list[str]:
    """Return sentences: no difference to the baseline was detected, and the power of the test."""
    unit, base = _unit(verdict), verdict.baseline
    detectable = max(detectable_after_holm(d, len(known), verdict.level) for d in known)
    if len(known) == 1:
        sentence = f"No difference between {known[0].first} and {base} was detected on this data"
        sentence += f": {_amount(verdict, known[0])}" if detectable else ""
    else:
        sentence = f"No difference to {base} was detected on this data for any of the {len(known)}"
        sentence += " other variants"
    if detectable == 0:
        return [f"{sentence}: the {unit} is the same"]
    if detectable < 1:
        return [
            sentence,
            f"A true difference of {points(detectable)} {unit} would be detected with 80% power",
        ]
    return [sentence, "Even a very large true difference would probably not be detected"]


def _largest_other_difference(verdict: Verdict) -> str:
    """Return the largest significant difference between two variants other than the baseline."""
    found = [pair for pair in verdict.pairs if verdict.differs(pair)]
    if not found:
        return ""
    widest = max(found, key=lambda pair: abs(pair.value))
    if widest.value < 0:
        widest = verdict.difference(widest.second, widest.first)
    return f"However, {widest.first} is better than {widest.second} by {_amount(verdict, widest)}"


def _amount(verdict: Verdict, found: Difference) -> str:
    """Return "1.3 AP [0.4, 2.2]"; if the first variant is worse, the signs are reversed."""
    value, low, high = found.value, found.low, found.high
    if verdict.differs(found) and value < 0:
        value, low, high = -value, -high, -low
    number = points(value, decimals(low, high))
    return f"{number} {_unit(verdict)} {interval(low, high)}"


def _unit(verdict: Verdict) -> str:
    return verdict.metric.replace("/", " of ", 1)


# Cautions


def cautions(study: Study) -> list[str]:
    """Return the limitations of this comparison, most important first."""
    found = limits(study.verdict()) if study.comparable else []
    found += filter(None, [weak_baseline(study)])
    found += [*_unfinished(study), *_left_out(study), *_without_gradient(study)]
    found += [*_file_cautions(study), *_merge_cautions(study)]
    return found + list(study.meta.get("notes") or [])


def limits(verdict: Verdict) -> list[str]:
    """Return cautions about few seeds, unequal seeds and few images."""
    sentences = []
    seeds = {difference.seeds for difference in verdict.pairs}
    if seeds == {1}:
        sentences.append(
            "With one seed, the intervals cover the sampling of images only. The variance between "
            "trainings is unknown, and another seed may reverse the order. Use at least three "
            "seeds."
        )
    elif 1 in seeds:
        sentences.append(
            "Some variants have only one seed in common. Their intervals use the variance between "
            "trainings of the other variants."
        )
    if 2 in seeds:
        sentences.append(
            "With two seeds, the variance between trainings has one degree of freedom: intervals "
            "are very wide or, by chance, too narrow (in simulations up to 13% false positives "
            "instead of 5%). Use at least three seeds."
        )
    if len({summary.seeds for summary in verdict.summaries} | seeds) > 1:
        sentences.append(
            "Not all variants have the same seeds. A difference uses the seeds that both variants "
            "have, so it may not equal the difference of their means."
        )
    if verdict.images < _FEW_IMAGES:
        sentences.append(
            f"Only {verdict.images} images were evaluated. Intervals from resampling so few images "
            "are inaccurate, especially for rare classes."
        )
    return sentences


def _unfinished(study: Study) -> list[str]:
    counts = Counter(run["status"] for run in study.runs if run["status"] != "done")
    if not counts:
        return []
    states = listed([f"{count} {status}" for status, count in counts.items()])
    done = len(study.runs) - counts.total()
    return [
        f"Only {done} of {len(study.runs)} runs are done ({states}). The report covers only these."
    ]


def _left_out(study: Study) -> list[str]:
    compared = study.compared
    out = [label for label in study.labels if study.done(label) and label not in compared]
    if not out or not study.comparable:
        return []
    return [
        f"Not in the statistics: {listed(out)} (no finished seed in common with every other "
        "variant). Run the same seeds for all variants."
    ]


def _without_gradient(study: Study) -> list[str]:
    found = [
        f"{_name(run)} ({slot})"
        for run in study.runs
        for slot, record in (run.get("proof") or {}).items()
        if run["status"] == "done" and record.get("gradient") is False
    ]
    if not found:
        return []
    return [
        "No finite, nonzero gradient of the loss was observed during training in "
        f"{listed(found)}. Check that the training data has boxes."
    ]


def _file_cautions(study: Study) -> list[str]:
    done = [run for run in study.runs if run["status"] == "done"]
    sentences = []
    if gone := [_name(run) for run in done if missing_detections(run)]:
        sentences.append(
            f"Not in the statistics, because their detections are missing: {listed(gone)}."
        )
    compared = study.compared if study.comparable else []
    checked = [run for run in done if run["variant"] in compared and not missing_detections(run)]
    if unlike := [text for run in checked if (text := _mismatch(study, run))]:
        sentences.append(
            "The statistics use the detections, whose AP differs from the recorded AP: "
            f"{listed(unlike)}."
        )
    if bare := [_name(run) for run in done if study.origins and not study.history(run)]:
        sentences.append(
            "No training curves, because history.jsonl is missing or cannot be read: "
            f"{listed(bare)}."
        )
    return sentences


def _name(run: dict[str, Any]) -> str:
    return f"{run['variant']} seed {run['seed']}"


def _mismatch(study: Study, run: dict[str, Any]) -> str | None:
    recorded = (run.get("metrics") or {}).get("AP")
    if recorded is None:
        return None
    computed = study.full(run)["AP"]
    if abs(recorded - computed) <= _TOLERANCE:
        return None
    return f"{_name(run)} ({points(computed, 2)}, recorded {points(recorded, 2)})"


def _merge_cautions(study: Study) -> list[str]:
    if len(study.origins) < 2:
        return []
    sentence = f"Merged from {listed([str(part.folder) for part in study.origins])}."
    hardware = [part.meta.get("hardware") or {} for part in study.origins]
    machines = {str(each.get("gpus") or each.get("cpu")) for each in hardware}
    versions = {str(part.meta.get("versions")) for part in study.origins}
    if len(machines) > 1:
        sentence += " The machines differ, so times and memory are not comparable."
    if len(versions) > 1:
        sentence += " The software versions differ."
    return [sentence]


# Sections of text


def power(study: Study) -> Section | None:
    """Return the standard deviation over seeds and the detectable differences."""
    if not study.comparable:
        return None
    verdict = study.verdict()
    sentences = []
    sds = [100 * s.sd for s in verdict.summaries if s.sd is not None and not math.isnan(s.sd)]
    if sds:
        pooled = math.sqrt(float(np.mean(np.square(sds))))
        sentences.append(
            f"The standard deviation of {verdict.metric} over the seeds of a variant is "
            f"{pooled:.1f} points (pooled; {min(sds):.1f} to {max(sds):.1f} for single variants)."
        )
    known = [d for d in verdict.against_baseline if not math.isnan(d.se) and d.se > 0]
    if known:
        sentences.append(_detectable(verdict, known))
        sentences += _variance_sources([d for d in known if d.seed_sd is not None])
    return Section("Seed variance and power", " ".join(sentences)) if sentences else None


def _detectable(verdict: Verdict, known: Sequence[Difference]) -> str:
    least, most = (points(f(d.detectable for d in known)) for f in (min, max))
    noisiest = "" if least == most else f" ({most} for the variant with the largest variance)"
    text = (
        f"A single test at the 5% level detects a true difference to the baseline of {least} "
        f"points with 80% power{noisiest}. Smaller differences will often be missed: no detected "
        "difference does not mean no difference."
    )
    if len(known) > 1 and not any(map(verdict.differs, known)):
        text += (
            " The value in the headline is larger, because it is for the variant with the largest "
            f"variance and includes Holm's correction for {len(known)} comparisons."
        )
    return text


def _variance_sources(known: Sequence[Difference]) -> list[str]:
    """Return whether seeds or images contribute more to the variance of a difference."""
    if not known:
        return []
    of_seeds = float(np.mean([d.seed_sd**2 / d.seeds / d.se**2 for d in known]))
    more = "more seeds" if of_seeds > 0.5 else "more evaluated images"
    return [
        f"On average, {of_seeds:.0%} of the variance of a difference comes from the seeds and "
        f"{1 - of_seeds:.0%} from the images: {more} would reduce it most."
    ]


def methods(study: Study) -> Section:
    """Return a description of the statistics."""
    files = max((len(run.get("detections") or [0]) for run in study.runs), default=1)
    averaged = f" The metrics of a run are means over its last {files} evaluations."
    pairs = (
        "Two runs with the same seed have the same initial weights, data order and augmentation"
        if study.origins
        else "Files at the same position in the lists of two variants form a pair"
    )
    text = f"""\
Metrics follow COCO's definition, are computed from each run's detections, and are given in \
points: an AP of 0.393 is 39.3.{averaged if files > 1 else ""} The mean and the standard deviation \
of a variant are over its seeds.

Differences are paired. {pairs}, and all runs are evaluated on the same images. A difference is \
the mean over the seeds that both variants have. Its variance is the sum of two: the variance of \
the per-seed differences divided by the number of seeds, and the variance of the difference under \
{study.resamples:,} bootstrap resamples of the images. All variants and seeds use the same \
resamples. An image drawn k times counts k times; a class without objects in a resample is left \
out for all variants. The 95% interval is a t interval with Welch-Satterthwaite degrees of \
freedom. For these, the variance over seeds is taken to be at least its median over all pairs, \
because an estimate from few seeds is often far too small. Intervals are not adjusted for the \
number of variants.

p (Holm) is adjusted for all comparisons with the baseline, which keeps the probability of any \
false positive below 5%. The groups use all pairs, adjusted for their number: between variants \
that share a letter, no difference was detected. That does not show that they are equal.

Metrics other than {study.metric} are exploratory: their intervals are not adjusted, and among \
many of them some will exclude zero by chance."""
    if max((len(study.done(label)) for label in study.compared), default=0) < 2:
        text += (
            "\n\nWith one seed, the variance over seeds is unknown and left out: the intervals "
            "describe other images with the same trained models."
        )
    return Section("Methods", text)
