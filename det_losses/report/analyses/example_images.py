"""Example images: those on which the two most different variants differ most, or samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from det_losses.errors import counted
from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import box_iou, match_pairs
from det_losses.report.analyses.context import Context
from det_losses.report.analyses.detection_stats import boxes_by_image, nan_mean, top_detections
from det_losses.report.photos import DrawnBox, Jpegs, Panel, side_by_side
from det_losses.report.plotting import clean
from det_losses.report.section import Figure, Section
from det_losses.statistics import Verdict

_PER_VARIANT = 4  # images on which each of the two variants is better
_SAMPLES = 6  # images, where no two variants differ
_LONGEST = 400  # pixels
_MAX_BOXES = 15  # more boxes are not legible in a small picture
_NAMED = 5  # boxes, or differences, that a sentence names
_IOU_STEP = 0.05  # a smaller difference in IoU is not named
_DIFFERENT, _SAMPLE = "Images that differ most", "Sample predictions"
_SCORE = (
    "The score of an image with n objects is the fraction of its n detections of highest score "
    "that are correct, averaged over the IoU thresholds from .50 to .95{seeds}. Only images with "
    f"at most {_MAX_BOXES} objects are shown, with their n detections."
)


@dataclass(frozen=True)
class Judged:
    """A detection on an image, judged at IoU .5.

    Attributes:
        box: x, y, width, height, pixels.
        name: its class.
        score: its score.
        iou: IoU with its object; without one, the highest IoU with an object of its class.
        truth: row of its object in the ground truth; None if it is wrong.
    """

    box: tuple[float, float, float, float]
    name: str
    score: float
    iou: float
    truth: int | None

    @property
    def text(self) -> str:
        """Class, score and, unless it is far from every object, IoU."""
        near = f" IoU {_fraction(self.iou)}" if self.truth is not None or self.iou >= 0.1 else ""
        return f"{clean(self.name, 18)} {_fraction(self.score)}{near}"


def image_section(context: Context) -> Section | None:
    """Return the images that differ most, or samples if none differ; None without a run."""
    if not context.labels:
        return None
    pair = most_different(context.study.verdict()) if context.others else None
    pictures = _Pictures(context, pair or tuple(context.labels[:1]))
    title = _DIFFERENT if pictures.differ else _SAMPLE
    text = f"{_introduction(context, pair, pictures.differ)} " + _SCORE.format(
        seeds=" and over the seeds" if context.several_seeds else ""
    )
    text += context.last_evaluation_note
    if not context.study.meta.get("image_dir"):
        return Section(title, f"{text}\n\nThe image folder is unknown, so no image is shown.")
    drawn, problems = [], []
    for place in pictures.places:
        try:
            drawn.append(pictures.draw(place))
        except (FileNotFoundError, ValueError) as error:
            problems.append(str(error))
    if problems:
        text += (
            f"\n\n{len(problems)} of {counted(len(pictures.places), 'image')} could not be read: "
        )
        text += problems[0]
    if not drawn:
        return Section(title, text)
    caption = (
        "Solid boxes are correct at IoU .5, dashed ones are wrong. Beside a box: its class, its "
        "score, and its IoU with the object; texts that would overlap others are left out."
    )
    if pictures.differ:
        caption += (
            f" The images on which {pair[0]} is better come first, then those on which {pair[1]} "
            "is; of several seeds, the one in which the two differ most is drawn."
        )
    return Section(title, text, (Figure(f"<div>{''.join(drawn)}</div>", caption),))


def _introduction(context: Context, pair: tuple[str, str] | None, differ: bool) -> str:
    if differ:
        return (
            f"{pair[0]} and {pair[1]} differ most in {context.study.metric}. These are the images "
            "on which their scores differ most."
        )
    if pair:
        return (
            f"{pair[0]} and {pair[1]} have the same score on every image that can be shown. These "
            "are images from the highest to the lowest score."
        )
    return f"Images from the highest to the lowest score of {context.labels[0]}."


def most_different(verdict: Verdict) -> tuple[str, str] | None:
    """Return the two labels with the largest difference, the better first; None without any."""
    known = [pair for pair in verdict.pairs if not np.isnan(pair.value)]
    if not known:
        return None
    pair = max(known, key=lambda found: abs(found.value))
    return (pair.first, pair.second) if pair.value >= 0 else (pair.second, pair.first)


def chosen_images(
    gains: np.ndarray, boxes: np.ndarray, per_variant: int = _PER_VARIANT
) -> list[int]:
    """Return the indices of the largest gains, then of the largest losses; the largest first.

    Args:
        gains: ``[I]`` difference in score; NaN for an image without a score.
        boxes: ``[I]`` number of boxes; images with too many are left out.
        per_variant: number of gains, and of losses.
    """
    usable = np.flatnonzero(~np.isnan(gains) & (boxes <= _MAX_BOXES))
    order = usable[np.argsort(-gains[usable], kind="stable")]
    better = [int(place) for place in order if gains[place] > 0][:per_variant]
    worse = [int(place) for place in order[::-1] if gains[place] < 0][:per_variant]
    return better + worse


def sample_images(scores: np.ndarray, boxes: np.ndarray, count: int = _SAMPLES) -> list[int]:
    """Return the indices of images from the highest to the lowest score, evenly spaced by rank.

    >>> sample_images(np.array([0.5, np.nan, 0.1, 0.9, 0.3]), np.array([1, 0, 1, 1, 99]), count=2)
    [3, 2]

    Args:
        scores: ``[I]``; NaN for an image without a score.
        boxes: ``[I]`` number of boxes; images with too many are left out.
        count: number of images.
    """
    usable = np.flatnonzero(~np.isnan(scores) & (boxes <= _MAX_BOXES))
    order = usable[np.argsort(-scores[usable], kind="stable")]
    at = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return order[at].tolist()


class _Pictures:
    """Images with the detections of one or two variants.

    Attributes:
        differ: whether the two variants differ on an image that can be shown.
        places: indices of the images.
    """

    def __init__(self, context: Context, labels: tuple[str, ...]) -> None:
        stats = {label: context.detection_stats[label] for label in labels}
        common = set.intersection(*({run.seed for run in runs} for runs in stats.values()))
        self._study, self._labels = context.study, labels
        self._jpegs = Jpegs()
        self._scores = {
            label: {run.seed: run.image_scores for run in runs if run.seed in common}
            for label, runs in stats.items()
        }
        self._means = {label: nan_mean(list(own.values())) for label, own in self._scores.items()}
        boxes, first = boxes_by_image(self._study.truth), self._means[labels[0]]
        gains = first - self._means[labels[-1]]
        self.places = chosen_images(gains, boxes)
        self.differ = bool(self.places)
        self.places = self.places or sample_images(first, boxes)
        self._detections: dict[tuple[str, int], np.ndarray] = {}

    def _seeds_on(self, place: int) -> list[int]:
        """Return the seeds whose runs were evaluated on an image, first the one to draw.

        It is the one in which the variants differ most in the direction of the mean difference.
        """
        first, last = (self._scores[label] for label in (self._labels[0], self._labels[-1]))
        gains = {seed: float(own[place] - last[seed][place]) for seed, own in first.items()}
        gains = {seed: gain for seed, gain in sorted(gains.items()) if not np.isnan(gain)}
        sign = 1 if sum(gains.values()) >= 0 else -1
        return sorted(gains, key=lambda seed: -sign * gains[seed])

    def _found(self, label: str, seed: int) -> np.ndarray:
        """Return the detections of a run."""
        if (label, seed) not in self._detections:
            run = next(run for run in self._study.done(label) if run["seed"] == seed)
            self._detections[label, seed] = self._study.detections(run)
        return self._detections[label, seed]

    def draw(self, place: int) -> str:
        """Return the ground truth and the variants' detections on an image, and what differs.

        Raises:
            FileNotFoundError: there is no such image file.
            ValueError: it cannot be read, or has another size.
        """
        truth = self._study.truth
        image_id = int(truth.image_ids[place])
        entry = next(image for image in self._study.coco["images"] if image["id"] == image_id)
        size = (entry["width"], entry["height"])
        path = Path(self._study.meta["image_dir"], entry["file_name"])
        jpeg = self._jpegs.read(path, size, _LONGEST)
        objects = objects_of(truth, place)
        seed, *others = self._seeds_on(place)
        found = {label: self._found(label, seed) for label in self._labels}
        boxes = {
            label: judged(truth, rows[rows[:, 0] == image_id]) for label, rows in found.items()
        }
        panels = [Panel(f"ground truth ({counted(len(objects), 'object')})", objects)]
        for label, own in boxes.items():
            right = sum(box.truth is not None for box in own)
            title = f"{clean(label, 30)}: {right} of {len(objects)} found"
            panels.append(Panel(title, list(map(_drawn, own))))
        means = ", ".join(
            f"{label} {100 * values[place]:.0f}%" for label, values in self._means.items()
        )
        over = f"mean of {1 + len(others)} seeds; drawn is " if others else ""
        caption = [f"{entry['file_name']}: score {means} ({over}seed {seed})"]
        if self.differ:
            caption.append(f"Difference: {difference_text(truth, boxes)}")
        caption += [found_text(label, own, len(objects)) for label, own in boxes.items()]
        return side_by_side(jpeg, size, panels, caption, "image")


def _drawn(box: Judged) -> DrawnBox:
    return DrawnBox(box.box, box.text, "wrong" if box.truth is None else "right")


def objects_of(truth: GroundTruth, place: int) -> list[DrawnBox]:
    """Return the objects of an image."""
    rows = np.flatnonzero((truth.image_index == place) & ~truth.crowds)
    return [
        DrawnBox(tuple(truth.boxes[row]), truth.names[truth.category_index[row]], "truth")
        for row in rows
    ]


def judged(truth: GroundTruth, detections: np.ndarray) -> list[Judged]:
    """Return the n detections of highest score on an image with n objects, judged at IoU .5.

    Args:
        truth: the ground truth.
        detections: ``[N, 7]`` of one image.
    """
    pairs = match_pairs(truth, detections)
    top, hits = top_detections(truth, detections, pairs)
    right = pairs.at[:, 0] & ~truth.crowds[pairs.truth]
    objects = dict(zip(pairs.detection[right], pairs.truth[right], strict=True))
    classes = np.searchsorted(truth.category_ids, detections[:, 6])
    found = []
    for row in top:
        own = objects.get(row) if hits[row, 0] else None
        near = [own] if own is not None else _same_class(truth, detections[row], classes[row])
        boxes = np.broadcast_to(detections[row, 1:5], (len(near), 4))
        ious = box_iou(boxes, truth.boxes[near], np.zeros(len(near), bool))
        found.append(
            Judged(
                box=tuple(detections[row, 1:5]),
                name=truth.names[classes[row]],
                score=float(detections[row, 5]),
                iou=float(ious.max(initial=0.0)),
                truth=None if own is None else int(own),
            )
        )
    return found


def _same_class(truth: GroundTruth, detection: np.ndarray, category: int) -> np.ndarray:
    """Return the rows of the objects of a class on the image of a detection."""
    place = np.searchsorted(truth.image_ids, detection[0])
    there = (truth.image_index == place) & (truth.category_index == category)
    return np.flatnonzero(there & ~truth.crowds)


def found_text(label: str, boxes: Sequence[Judged], objects: int) -> str:
    """Return what a variant found on an image, and its false boxes.

    >>> cat, dog = Judged((), "cat", 0.914, 0.88, 0), Judged((), "dog", 0.4, 0.0, None)
    >>> found_text("A", [cat, dog], objects=2)
    'A: 1 of 2 found at IoU .5 (cat .91 IoU .88), 1 false (dog .40)'
    """
    right = [box for box in boxes if box.truth is not None]
    wrong = [box for box in boxes if box.truth is None]
    text = f"{label}: {len(right)} of {objects} found at IoU .5{_named(right)}"
    return f"{text}, {len(wrong)} false{_named(wrong)}" if wrong else text


def difference_text(truth: GroundTruth, boxes: Mapping[str, Sequence[Judged]]) -> str:
    """Return in which objects and false boxes two variants differ, the largest difference first.

    Args:
        truth: the ground truth.
        boxes: label -> detections of the same image; two labels.
    """
    (first, own), (second, other) = boxes.items()
    ious = [
        {box.truth: box.iou for box in found if box.truth is not None} for found in (own, other)
    ]
    parts = []
    for row in sorted(ious[0].keys() | ious[1].keys()):
        name = clean(truth.names[truth.category_index[row]], 30)
        a, b = (found.get(row, 0.0) for found in ious)
        if not (a and b):
            label, iou = (first, a) if a else (second, b)
            parts.append((iou, f"{name} found only by {label} (IoU {_fraction(iou)})"))
        elif abs(a - b) >= _IOU_STEP:
            text = f"{name} with IoU {_fraction(a)} in {first} and {_fraction(b)} in {second}"
            parts.append((abs(a - b), text))
    texts = [text for _, text in sorted(parts, key=lambda part: -part[0])]
    texts = [*texts[:_NAMED], *([f"{len(texts) - _NAMED} more"] if len(texts) > _NAMED else [])]
    false = [sum(box.truth is None for box in found) for found in (own, other)]
    if false[0] != false[1]:
        texts.append(f"{false[0] or 'no'} false in {first}, {false[1] or 'no'} in {second}")
    return "; ".join(texts) or f"in this seed, no object differs in IoU by {_IOU_STEP:g} or more"


def _named(boxes: Sequence[Judged]) -> str:
    """Return the first boxes in parentheses, and how many more there are."""
    texts = [box.text for box in boxes[:_NAMED]]
    texts += [f"{len(boxes) - _NAMED} more"] if len(boxes) > _NAMED else []
    return f" ({', '.join(texts)})" if texts else ""


def _fraction(value: float) -> str:
    """Return a number from 0 to 1 with two decimals: ".91"."""
    return f"{value:.2f}".removeprefix("0")
