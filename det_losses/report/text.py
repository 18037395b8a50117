"""Title, subtitle, and the section on the variance over seeds and power."""

import math
from collections.abc import Sequence

import numpy as np

from det_losses.errors import counted
from det_losses.report.answer import margin
from det_losses.report.formats import listed, points
from det_losses.report.runs import Runs
from det_losses.report.section import Section
from det_losses.statistics import Difference, Verdict


def title(study: Runs) -> str:
    """Return a title with the compared slots, the detector and the epoch of a fork."""
    components, detector = study.meta.get("components"), study.meta.get("detector")
    fork = study.fork
    forked = f", forked after epoch {fork['epoch']} of {fork['epochs']}" if fork else ""
    if study.trained_by:
        what = listed(components) if components else "variants"
        return f"Comparison of {what}, trained by {study.trained_by}"
    if components and detector:
        return f"Comparison of {listed(components)} in {detector}{forked}"
    return f"Comparison of variants of {detector}" if detector else "Comparison of detections"


def subtitle(study: Runs) -> str:
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


def power(study: Runs) -> Section | None:
    """Return the standard deviation over seeds and the detectable differences."""
    if not study.comparable:
        return None
    verdict = study.verdict()
    sentences = []
    sds = [100 * s.sd for s in verdict.summaries if s.sd is not None and not math.isnan(s.sd)]
    if any(sds):
        pooled = math.sqrt(float(np.mean(np.square(sds))))
        sentences.append(
            f"The standard deviation of {verdict.metric} over the seeds of a variant is "
            f"{pooled:.1f} points (pooled; {min(sds):.1f} to {max(sds):.1f} for single variants)."
        )
    known = [d for d in verdict.against_baseline if not math.isnan(d.p) and d.se > 0]
    if known:
        sentences.append(_detectable(verdict))
        sentences.append(_seeds_needed(verdict))
        if not study.folds:
            sentences += _variance_sources(known)
    sentences = list(filter(None, sentences))
    return Section("Seed variance and power", " ".join(sentences)) if sentences else None


def _detectable(verdict: Verdict) -> str:
    median, low, high = map(points, verdict.detectable)
    spread = "" if low == high else f" (median of the variants; {low} to {high})"
    return (
        f"A true difference to the baseline of {median} points is detected with 80% power{spread}. "
        "Smaller differences will often be missed: no detected difference does not mean no "
        "difference."
    )


def _seeds_needed(verdict: Verdict) -> str:
    wanted = verdict.seeds_needed(verdict.within)
    if wanted is None:
        if verdict.folds:
            return (
                f"More images are needed to detect {margin(verdict)}; further seeds on the same "
                "folds reduce only the part of the variance that is not due to the images."
            )
        return f"No number of seeds would detect {margin(verdict)} on so few images."
    return f"To detect {margin(verdict)}, {wanted} seeds of each variant would be needed."


def _variance_sources(known: Sequence[Difference]) -> list[str]:
    """Return whether seeds or images contribute more to the variance of a difference."""
    if not known:
        return []
    of_seeds = float(np.mean([d.seed_se**2 / d.se**2 for d in known]))
    more = "more seeds" if of_seeds > 0.5 else "more evaluated images"
    return [
        f"On average, {of_seeds:.0%} of the variance of a difference comes from the seeds and "
        f"{1 - of_seeds:.0%} from the images: {more} would reduce it most."
    ]
