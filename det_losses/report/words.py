"""What a report says in sentences: the answer, the spread, how it was done."""

import math

import numpy as np

from det_losses.report.formats import counted, listed, points
from det_losses.report.section import Part, Section
from det_losses.report.study import Study
from det_losses.statistics import answer

TOO_LOW = 0.10  # AP under which differences say nothing about losses


def title(study: Study) -> str:
    """Return what was compared."""
    components, detector = study.meta.get("components"), study.meta.get("detector")
    if components and detector:
        return f"Comparison of {listed(components)} in {detector}"
    return f"Comparison of variants of {detector}" if detector else "Comparison of detections"


def subtitle(study: Study) -> str:
    """Return on how much data, and how many runs."""
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
    """Return the answer in one sentence, or why there is none."""
    if not study.done(study.baseline):
        return f"There is no answer yet: the baseline {study.baseline} has no finished run."
    if not study.comparable:
        return "There is no answer: one image says nothing about others."
    return too_low(study) or answer(study.verdict())


def too_low(study: Study) -> str | None:
    """Return the sentence that forbids a ranking, if not even the best variant has learned."""
    if not study.comparable:
        return None
    best = max((value for value in _means(study).values() if value >= 0), default=math.nan)
    if math.isnan(best) or best >= TOO_LOW:
        return None
    return (
        f"No ranking should be read from this comparison: the best variant reaches AP "
        f"{points(best)}, below {points(TOO_LOW)}. Train longer, on more images or on fewer "
        "classes."
    )


def weak_baseline(study: Study) -> str | None:
    """Return the sentence that warns of a baseline which has hardly learned, where others have."""
    if not study.comparable or too_low(study):
        return None
    value = _means(study)[study.baseline]
    if math.isnan(value) or value >= TOO_LOW:
        return None
    return (
        f"The baseline {study.baseline} reaches AP {points(value)} only, below {points(TOO_LOW)}: "
        "to beat it says little. Name another one with --baseline."
    )


def _means(study: Study) -> dict[str, float]:
    return {label: float(own.full.mean()) for label, own in study.scores("AP").items()}


def shown_order(study: Study) -> list[str]:
    """Return the compared variants, best first; as planned, where no ranking should be read."""
    if not study.comparable or too_low(study):
        return study.compared
    return [summary.label for summary in study.verdict().summaries]


def spread(study: Study) -> Part | None:
    """Return how far seeds are apart, and which difference could have been found."""
    if not study.comparable:
        return None
    verdict = study.verdict()
    sentences = []
    sds = [100 * s.sd for s in verdict.summaries if s.sd is not None and not math.isnan(s.sd)]
    if sds:
        pooled = math.sqrt(float(np.mean(np.square(sds))))
        sentences.append(
            f"Two runs that differ in nothing but the seed differ: the standard deviation of "
            f"{verdict.metric} over the seeds of one variant is {pooled:.1f} points "
            f"(from {min(sds):.1f} to {max(sds):.1f})."
        )
    known = [d for d in verdict.against_baseline if not math.isnan(d.se) and d.se > 0]
    if known:
        least, most = (points(f(d.detectable for d in known)) for f in (min, max))
        sentences.append(
            f"A single test at the 5% level finds a true difference to the baseline of {least} "
            f"points with 80% power{'' if least == most else f' ({most} for the noisiest variant)'}"
            ". Smaller ones will mostly be missed, and what is missed is not shown to be equal."
            f"{_bridge(len(known))}"
        )
        sentences += _shares([d for d in known if d.seed_sd is not None])
    return Part(Section("Spread and what can be found", " ".join(sentences))) if sentences else None


def _bridge(tests: int) -> str:
    """Say why the sentence on top may name a larger difference."""
    if tests < 2:
        return ""
    return (
        f" Where the sentence on top names a larger one, it is for the noisiest variant and after "
        f"Holm's correction for {tests} comparisons."
    )


def _shares(known: list) -> list[str]:
    """Say whether seeds or images make the difference uncertain."""
    if not known:
        return []
    of_seeds = float(np.mean([d.seed_sd**2 / d.seeds / d.se**2 for d in known]))
    more = "more seeds" if of_seeds > 0.5 else "more evaluated images"
    return [
        f"Of the variance of a difference, {of_seeds:.0%} comes from the seeds and "
        f"{1 - of_seeds:.0%} from the images: {more} would help most."
    ]


def method(study: Study) -> Part:
    """Return how the numbers were made, in words."""
    files = max((len(run.get("detections") or [0]) for run in study.runs), default=1)
    averaged = (
        f" The metrics of a run are the mean over its last {files} evaluations."
        if files > 1
        else ""
    )
    same = (
        "the same seed of two variants has the same initial weights, order of data and "
        "augmentation, and both are"
        if study.origins
        else "the files of two variants with the same place in their order are"
    )
    text = f"""\
The metric is COCO's, from each run's detections, in points: an AP of 0.393 is 39.3.{averaged} \
The mean and the standard deviation of a variant are over its seeds.

A difference is paired: {same} evaluated on the same images. It is the mean over the seeds that \
both have. Its variance is the sum of two: that of the per-seed differences divided by the number \
of seeds, and that of the difference under {study.resamples:,} bootstrap resamples of the images. \
One resample is applied to all variants and all seeds; an image that is drawn k times counts k \
times, and a class without objects in a draw drops out for all. The 95% interval is a t interval \
with Welch and Satterthwaite's degrees of freedom, for which the variance over seeds counts as at \
least its median over all pairs: by luck it is often far too small with few seeds. The interval is \
not adjusted for the number of variants.

p (Holm) is adjusted for all comparisons with the baseline: the chance that any variant is said to \
differ by accident stays below 5%. Groups come from all pairs, adjusted for their number: variants \
that share a letter cannot be told apart. Not to be told apart does not mean equal.

Metrics beside {study.metric} are exploratory: their intervals are not adjusted, and with many \
of them some will exclude zero by accident."""
    if max((len(study.done(label)) for label in study.compared), default=0) < 2:
        text += (
            "\n\nWith one seed the variance over seeds is unknown and left out: the intervals are "
            "about other images for these very trainings."
        )
    return Part(Section("How it was done", text))
