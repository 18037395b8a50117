"""Cautions: what limits the results of a comparison, as sentences."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from det_losses.data.box_faults import STRONG
from det_losses.data.folds import classes_in_one_fold
from det_losses.data.split_checks import MORE_DETECTIONS, capped
from det_losses.errors import agreed, counted
from det_losses.report.answer import (
    TOO_LOW,
    causes_of_low_ap,
    mean_aps,
    supports_ranking,
    unit,
)
from det_losses.report.formats import listed, points
from det_losses.report.records import not_recorded
from det_losses.report.runs import Runs
from det_losses.report.stored import missing_detections
from det_losses.statistics import Caution, CautionKind, Verdict
from det_losses.statistics.cautions import FEW_CLASS_IMAGES

FORK_BIAS = "half as large in the case that was measured, with a fork in the middle"
_REPEAT = "The command of the comparison evaluates such a run again, from its last checkpoint."
_TRAIN_AGAIN = "The command of the comparison trains such a run again."
_TOLERANCE = 5e-4  # between a run's recorded AP and the AP of its detections


def cautions(study: Runs) -> list[str]:
    """Return the limitations of this comparison, most important first."""
    found = [*_interim(study), *_wrong_boxes(study), *_chosen_later(study), *forked(study)]
    found += [not_recorded(study.trained_by)] if study.trained_by else []
    found += limits(study.verdict()) if study.comparable else []
    if study.comparable and not supports_ranking(study):
        found += causes_of_low_ap(study)[1:]
    found += [*_rare_classes(study), *filter(None, [weak_baseline(study), _capped(study)])]
    found += [*_unfinished(study), *_left_out(study), *_without_gradient(study)]
    found += [*_file_cautions(study), *_merge_cautions(study)]
    found += study.meta.get("notes") or []
    return [" ".join(sentence.split()) for sentence in found]  # names may contain line breaks


def _interim(study: Runs) -> list[str]:
    if not study.interim:
        return []
    return [
        "Runs are still training. This report is rewritten after each run, and the page reloads "
        "itself. Repeated looks at intervals find differences that are due to chance, so nothing "
        "is tested and no variant is recommended yet."
    ]


def _chosen_later(study: Runs) -> list[str]:
    if not study.planned_metric:
        return []
    return [
        f"{study.metric} was chosen after the training; the comparison was planned for "
        f"{study.planned_metric}. Of many metrics, some exclude zero by chance, so the intervals, "
        "p-values and candidates of this report are exploratory and decide nothing."
    ]


def _wrong_boxes(study: Runs) -> list[str]:
    """Return what almost certainly is an error in the data, if the answer does not say it."""
    if study.comparable and not supports_ranking(study):
        return []
    notes = [note for own in (study.meta.get("data_notes") or {}).values() for note in own]
    return [note for note in notes if STRONG in note]


def forked(study: Runs) -> list[str]:
    """Return what the differences of a forked comparison mean; nothing for other comparisons."""
    if not study.fork:
        return []
    epoch, epochs, baseline = (study.fork[key] for key in ("epoch", "epochs", "baseline"))
    return [
        f"Forked after epoch {epoch} of {epochs}: up to there, only {baseline} was trained, and "
        "all variants continue from it. The differences are those of switching the loss for the "
        f"last {counted(epochs - epoch, 'epoch')}. They are smaller than those of whole trainings "
        f"({FORK_BIAS}), so variants that are close here may differ more if each is trained from "
        "scratch."
    ]


def limits(verdict: Verdict) -> list[str]:
    """Return a sentence for each caution of the statistics, and for metrics without a value."""
    found = [_SENTENCES[caution.kind](caution, verdict) for caution in verdict.cautions]
    undefined = [s.label for s in verdict.summaries if math.isnan(s.mean)]
    if undefined and len(undefined) < len(verdict.summaries):
        found.append(f"{unit(verdict)} is undefined for {listed(undefined)}.")
    return found


def _repeat(verdict: Verdict) -> str:
    """Return what a variant is repeated over."""
    return "seed" if verdict.folds is None else "fold"


def _one_seed(caution: Caution, verdict: Verdict) -> str:
    return (
        f"With one {_repeat(verdict)}, the intervals are for other images with the same trained "
        f"models, not for other trainings. Use at least three {_repeat(verdict)}s."
    )


def _two_seeds(caution: Caution, verdict: Verdict) -> str:
    return (
        f"With two {_repeat(verdict)}s, the variance between trainings is poorly known, and "
        f"intervals are very wide. Use at least three {_repeat(verdict)}s."
    )


def _unequal_seeds(caution: Caution, verdict: Verdict) -> str:
    return (
        f"Not all variants have the same {_repeat(verdict)}s "
        f"({counted(int(caution.value), 'run')} missing of {listed(caution.labels)}). Means and "
        f"differences are estimated for all {_repeat(verdict)}s, by least squares of the model "
        f"variant + {_repeat(verdict)}."
    )


def _outlying_run(caution: Caution, verdict: Verdict) -> str:
    where = "above" if caution.value > 0 else "below"
    return (
        f"{caution.labels[0]} {_repeat(verdict)} {caution.seed} is {points(abs(caution.value))} "
        f"points {where} the other {_repeat(verdict)}s of that variant. It may have diverged: look "
        "at its log and curves."
    )


def _unequal_variance(caution: Caution, verdict: Verdict) -> str:
    return (
        f"{caution.labels[0]} varies more between {_repeat(verdict)}s than the others (variance "
        f"ratio {caution.value:.0f}). Intervals for it may be too narrow, those of the others too "
        "wide."
    )


def _identical_runs(caution: Caution, verdict: Verdict) -> str:
    if len(caution.labels) == 1:
        return (
            f"All {int(caution.value)} seeds of {caution.labels[0]} have the same "
            f"{unit(verdict)}. Check that the seeds were used."
        )
    return (
        f"{caution.labels[0]} and {caution.labels[1]} have the same {unit(verdict)} in "
        f"{'their common seed' if caution.value == 1 else 'each common seed'}. Check that they are "
        "different losses."
    )


def _few_images(caution: Caution, verdict: Verdict) -> str:
    return (
        f"Only {int(caution.value)} images were evaluated. Intervals from resampling so few images "
        "are inaccurate, especially for rare classes."
    )


def _rare_class(caution: Caution, verdict: Verdict) -> str:
    return (
        f"Only {counted(int(caution.value), 'evaluated image')} have objects of this class. "
        "Resampling so few images underestimates the variance."
    )


def _unlike_baseline(caution: Caution, verdict: Verdict) -> str:
    return (
        f"The other variants are more similar to each other than to {caution.labels[0]}, so "
        "differences among them are known more precisely than the intervals say. A baseline of "
        "the same kind would show it."
    )


_SENTENCES: Mapping[CautionKind, Callable[[Caution, Verdict], str]] = MappingProxyType(
    {
        CautionKind.ONE_SEED: _one_seed,
        CautionKind.TWO_SEEDS: _two_seeds,
        CautionKind.UNEQUAL_SEEDS: _unequal_seeds,
        CautionKind.OUTLYING_RUN: _outlying_run,
        CautionKind.UNEQUAL_VARIANCE: _unequal_variance,
        CautionKind.IDENTICAL_RUNS: _identical_runs,
        CautionKind.FEW_IMAGES: _few_images,
        CautionKind.RARE_CLASS: _rare_class,
        CautionKind.UNLIKE_BASELINE: _unlike_baseline,
    }
)


def _rare_classes(study: Runs) -> list[str]:
    """Return a caution about classes in few images, if the metric is a mean over classes."""
    if not study.comparable or study.metric.startswith("AP/") or len(study.truth.names) < 2:
        return []
    if study.folds:
        return _untrained_classes(study)
    rare = [n for n in study.truth.names if 0 < study.class_images(n) < FEW_CLASS_IMAGES]
    if not rare:
        return []
    alone = "these classes" if len(rare) > 1 else "this class"
    return [
        f"Fewer than {FEW_CLASS_IMAGES} evaluated images have objects of {listed(rare)}. Intervals "
        f"of a mean over classes are less accurate, and those of {alone} alone are too narrow."
    ]


def _untrained_classes(study: Runs) -> list[str]:
    untrained = classes_in_one_fold(study.coco)
    if not untrained:
        return []
    return [
        f"All objects of {listed(untrained)} are in one fold. The runs that are evaluated on it "
        "were trained without any, so their AP for it is about 0."
    ]


def weak_baseline(study: Runs) -> str | None:
    """Return a caution if the baseline has a low AP, but not all variants have."""
    if not supports_ranking(study):
        return None
    value = mean_aps(study)[study.baseline]
    if math.isnan(value) or value >= TOO_LOW:
        return None
    return (
        f"The baseline {study.baseline} reaches only AP {points(value)}, below {points(TOO_LOW)}. "
        "Differences to it are not informative; choose another one with --baseline."
    )


def _unfinished(study: Runs) -> list[str]:
    counts = Counter(run["status"] for run in study.runs if run["status"] != "done")
    if not counts:
        return []
    states = listed([f"{count} {status}" for status, count in counts.items()])
    done = len(study.runs) - counts.total()
    return [
        f"Only {done} of {len(study.runs)} runs {agreed(done, 'are')} done ({states}). "
        "The report covers only these."
    ]


def _left_out(study: Runs) -> list[str]:
    compared = study.compared
    out = [label for label in study.labels if study.done(label) and label not in compared]
    if not out or not study.comparable:
        return []
    return [
        f"Not in the statistics: {listed(out)} (no finished seed in common with every other "
        "variant). Run the same seeds for all variants."
    ]


def _capped(study: Runs) -> str | None:
    """Return a caution if some objects cannot be found with the evaluated detections."""
    truth = study.truth
    remedy = MORE_DETECTIONS if study.origins else "--max-dets {} evaluates more"
    images, labels = (index[~truth.crowds] for index in (truth.image_index, truth.category_index))
    return capped(images, labels, truth.image_ids.size, study.max_dets, f"{remedy}.")


def _without_gradient(study: Runs) -> list[str]:
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
        f"{listed(found)}. Check that the training data has boxes, and that their size fits the "
        "anchors or locations of the detector."
    ]


def _file_cautions(study: Runs) -> list[str]:
    done = [run for run in study.runs if run["status"] == "done"]
    sentences = []
    repeat = _TRAIN_AGAIN if study.trained_by else _REPEAT
    if gone := [_name(run) for run in done if missing_detections(run)]:
        sentences.append(
            f"Not in the statistics, because their detections are missing: {listed(gone)}. {repeat}"
        )
    broken = [run for run in done if not missing_detections(run) and study.damage(run)]
    if damaged := [f"{_name(run)} ({study.damage(run).rstrip('.?')})" for run in broken]:
        sentences.append(
            f"Not in the statistics, because their detections are damaged: {listed(damaged)}. "
            f"{repeat}"
        )
    compared = study.compared if study.comparable else []
    checked = [run for run in done if run["variant"] in compared and study.usable(run)]
    if unlike := [text for run in checked if (text := _mismatch(study, run))]:
        sentences.append(
            "The statistics use the detections, whose AP differs from the recorded AP: "
            f"{listed(unlike)}."
        )
    own = study.origins and not study.trained_by
    if bare := [_name(run) for run in done if own and not study.history(run)]:
        sentences.append(
            "No training curves, because history.jsonl is missing or cannot be read: "
            f"{listed(bare)}."
        )
    return sentences


def _name(run: dict[str, Any]) -> str:
    return f"{run['variant']} seed {run['seed']}"


def _mismatch(study: Runs, run: dict[str, Any]) -> str | None:
    recorded = (run.get("metrics") or {}).get("AP")
    if recorded is None:
        return None
    computed = study.full(run)["AP"]
    if abs(recorded - computed) <= _TOLERANCE:
        return None
    return f"{_name(run)} ({points(computed, 2)}, recorded {points(recorded, 2)})"


def _merge_cautions(study: Runs) -> list[str]:
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
