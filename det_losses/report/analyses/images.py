"""The images on which the two most different variants differ most, side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import match_pairs
from det_losses.report.analyses.arrays import nan_mean
from det_losses.report.analyses.context import Context
from det_losses.report.analyses.facts import boxes_by_image, image_hits
from det_losses.report.photos import DrawnBox, Panel, read_jpeg, side_by_side
from det_losses.report.plotting import clean
from det_losses.report.section import Figure, Section
from det_losses.statistics import Verdict

_EACH_WAY = 4  # images where the one is better, and where the other is
_LONGEST = 400  # pixels
_MOST_BOXES = 15  # more boxes than that cannot be told apart in a small picture
TITLE = "Images that differ most"


def section(context: Context) -> Section | None:
    """Return the section, or None where there are no two variants to compare."""
    pair = most_different(context.study.verdict()) if context.others else None
    if pair is None:
        return None
    first, second = pair
    text = (
        f"{first} and {second} differ most in {context.study.metric}; these are the images on "
        "which they do. An image's score: of its n detections of highest score, where n is the "
        "number of its objects, the part that is right, averaged over the IoU thresholds from .50 "
        f"to .95 and over the seeds. Shown are images with at most {_MOST_BOXES} objects, and on "
        "them these n detections." + context.evaluated
    )
    folder = Path(context.study.meta.get("image_dir") or "")
    if not context.study.meta.get("image_dir"):
        return Section(TITLE, f"{text}\n\nThe folder of the images is not known, so none is shown.")
    seeds = _common_seeds(context, first, second)
    scores = {label: _scores(context, label, seeds) for label in pair}
    places = chosen_images(scores[first] - scores[second], boxes_by_image(context.study.truth))
    runs = {label: _run(context, label, seeds[0]) for label in pair}
    detections = {label: context.study.detections(run) for label, run in runs.items()}
    pictures, lost = [], []
    for place in places:
        try:
            pictures.append(_picture(context, place, folder, detections, scores, seeds))
        except (FileNotFoundError, ValueError) as error:
            lost.append(str(error))
    if lost:
        text += f"\n\n{len(lost)} of {len(places)} images could not be read: {lost[0]}"
    elif not places:
        text += "\n\nThere is no such image: they score alike on all of them."
    if not pictures:
        return Section(TITLE, text)
    caption = (
        f"Solid: right at IoU .5, dashed: wrong. Drawn is seed {seeds[0]}. First the images where "
        f"{first} is better, then those where {second} is. Names that would cover others are left "
        "out."
    )
    return Section(TITLE, text, (Figure(f"<div>{''.join(pictures)}</div>", caption),))


def most_different(verdict: Verdict) -> tuple[str, str] | None:
    """Return the labels of the largest difference, the better one first; None without any."""
    known = [pair for pair in verdict.pairs if not np.isnan(pair.value)]
    if not known:
        return None
    pair = max(known, key=lambda found: abs(found.value))
    return (pair.first, pair.second) if pair.value >= 0 else (pair.second, pair.first)


def chosen_images(gains: np.ndarray, boxes: np.ndarray, each_way: int = _EACH_WAY) -> list[int]:
    """Return the places of the largest gains, then of the largest losses; the largest first.

    Args:
        gains: ``[I]`` difference in score; NaN where an image has none.
        boxes: ``[I]`` number of boxes; images with very many are left out.
        each_way: how many gains, and how many losses.
    """
    usable = np.flatnonzero(~np.isnan(gains) & (boxes <= _MOST_BOXES))
    order = usable[np.argsort(-gains[usable], kind="stable")]
    better = [int(place) for place in order if gains[place] > 0][:each_way]
    worse = [int(place) for place in order[::-1] if gains[place] < 0][:each_way]
    return better + worse


def _common_seeds(context: Context, first: str, second: str) -> list[int]:
    seeds = [{fact.seed for fact in context.facts[label]} for label in (first, second)]
    return sorted(seeds[0] & seeds[1])


def _scores(context: Context, label: str, seeds: list[int]) -> np.ndarray:
    return nan_mean([fact.scores for fact in context.facts[label] if fact.seed in seeds])


def _run(context: Context, label: str, seed: int) -> dict[str, Any]:
    return next(run for run in context.study.done(label) if run["seed"] == seed)


def _picture(
    context: Context,
    place: int,
    folder: Path,
    detections: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    seeds: list[int],
) -> str:
    truth = context.study.truth
    image_id = int(truth.image_ids[place])
    entry = next(image for image in context.study.coco["images"] if image["id"] == image_id)
    size = (entry["width"], entry["height"])
    jpeg = read_jpeg(folder / entry["file_name"], size, _LONGEST)
    objects = _objects(truth, place)
    panels = [Panel(f"ground truth ({len(objects)})", objects)]
    for label, found in detections.items():
        boxes = _judged(truth, found[found[:, 0] == image_id])
        right = sum(box.kind == "right" for box in boxes)
        panels.append(Panel(f"{clean(label, 30)} ({right} of {len(boxes)} right)", boxes))
    means = ", ".join(f"{label} {100 * scores[label][place]:.0f}%" for label in detections)
    over = "mean over seeds" if len(seeds) > 1 else "one seed"
    caption = f"{entry['file_name']}: score {means} ({over})"
    return side_by_side(jpeg, size, panels, caption, "image")


def _objects(truth: GroundTruth, place: int) -> list[DrawnBox]:
    rows = np.flatnonzero((truth.image_index == place) & ~truth.crowds)
    return [
        DrawnBox(tuple(truth.boxes[row]), truth.names[truth.category_index[row]], "truth")
        for row in rows
    ]


def _judged(truth: GroundTruth, detections: np.ndarray) -> list[DrawnBox]:
    kept, hits = image_hits(truth, detections, match_pairs(truth, detections))
    classes = np.searchsorted(truth.category_ids, detections[:, 6])
    return [
        DrawnBox(
            tuple(detections[row, 1:5]),
            truth.names[classes[row]],
            "right" if hits[row, 0] else "wrong",
        )
        for row in kept
    ]
