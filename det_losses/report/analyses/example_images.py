"""Example images on which the two most different variants differ most."""

from pathlib import Path

import numpy as np

from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import match_pairs
from det_losses.report.analyses.context import Context
from det_losses.report.analyses.detection_stats import boxes_by_image, nan_mean, top_detections
from det_losses.report.photos import DrawnBox, Panel, read_jpeg, side_by_side
from det_losses.report.plotting import clean
from det_losses.report.section import Figure, Section
from det_losses.statistics import Verdict

_PER_VARIANT = 4  # images on which each of the two variants is better
_LONGEST = 400  # pixels
_MAX_BOXES = 15  # more boxes are not legible in a small picture
_TITLE = "Images that differ most"


def image_section(context: Context) -> Section | None:
    """Return the section, or None without two variants to compare."""
    pair = most_different(context.study.verdict()) if context.others else None
    if pair is None:
        return None
    text = (
        f"{pair[0]} and {pair[1]} differ most in {context.study.metric}. These are the images on "
        "which their scores differ most. The score of an image with n objects is the fraction of "
        "its n detections of highest score that are correct, averaged over the IoU thresholds from "
        f".50 to .95 and over the seeds. Only images with at most {_MAX_BOXES} objects are shown, "
        "with their n detections." + context.last_evaluation_note
    )
    if not context.study.meta.get("image_dir"):
        return Section(_TITLE, f"{text}\n\nThe image folder is unknown, so no image is shown.")
    pictures = _Pictures(context, pair)
    drawn, problems = [], []
    for place in pictures.places:
        try:
            drawn.append(pictures.draw(place))
        except (FileNotFoundError, ValueError) as error:
            problems.append(str(error))
    if problems:
        text += f"\n\n{len(problems)} of {len(pictures.places)} images could not be read: "
        text += problems[0]
    elif not drawn:
        text += "\n\nThere is no such image: the scores are equal on all images."
    if not drawn:
        return Section(_TITLE, text)
    caption = (
        f"Solid boxes are correct at IoU .5, dashed ones are wrong; {pictures.seed_note}. The "
        f"images on which {pair[0]} is better come first, then those on which {pair[1]} is. Class "
        "names that would overlap others are left out."
    )
    return Section(_TITLE, text, (Figure(f"<div>{''.join(drawn)}</div>", caption),))


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


class _Pictures:
    """The images that differ most between two variants.

    Attributes:
        seeds: the seeds that both variants have.
        places: indices of the images.
    """

    def __init__(self, context: Context, pair: tuple[str, str]) -> None:
        stats = context.detection_stats
        common = set.intersection(*({run.seed for run in stats[label]} for label in pair))
        self.seeds = sorted(common)
        self._study = context.study
        self._scores = {
            label: nan_mean([run.image_scores for run in stats[label] if run.seed in common])
            for label in pair
        }
        gains = self._scores[pair[0]] - self._scores[pair[1]]
        self.places = chosen_images(gains, boxes_by_image(self._study.truth))
        self._detections: dict[tuple[str, int], np.ndarray] = {}

    @property
    def seed_note(self) -> str:
        """Which seed's detections are drawn."""
        if self._study.folds:
            return "the first seed that was evaluated on the image"
        return f"seed {self.seeds[0]}"

    def _seeds_on(self, place: int) -> list[int]:
        """Return the seeds whose runs were evaluated on an image."""
        image_id = self._study.truth.image_ids[place]
        return [seed for seed in self.seeds if image_id in self._study.truth_of(seed).image_ids]

    def _found(self, label: str, seed: int) -> np.ndarray:
        """Return the detections of a run."""
        if (label, seed) not in self._detections:
            run = next(run for run in self._study.done(label) if run["seed"] == seed)
            self._detections[label, seed] = self._study.detections(run)
        return self._detections[label, seed]

    def draw(self, place: int) -> str:
        """Return the ground truth and both variants' detections on an image.

        Raises:
            FileNotFoundError: there is no such image file.
            ValueError: it cannot be read, or has another size.
        """
        truth = self._study.truth
        image_id = int(truth.image_ids[place])
        entry = next(image for image in self._study.coco["images"] if image["id"] == image_id)
        size = (entry["width"], entry["height"])
        jpeg = read_jpeg(Path(self._study.meta["image_dir"], entry["file_name"]), size, _LONGEST)
        objects = objects_of(truth, place)
        panels = [Panel(f"ground truth ({len(objects)})", objects)]
        seeds = self._seeds_on(place)
        for label in self._scores:
            found = self._found(label, seeds[0])
            boxes = judged(truth, found[found[:, 0] == image_id])
            right = sum(box.kind == "right" for box in boxes)
            panels.append(Panel(f"{clean(label, 30)} ({right} of {len(boxes)} correct)", boxes))
        means = [f"{label} {100 * values[place]:.0f}%" for label, values in self._scores.items()]
        over = "mean over seeds" if len(seeds) > 1 else "one seed"
        caption = f"{entry['file_name']}: score {', '.join(means)} ({over})"
        return side_by_side(jpeg, size, panels, caption, "image")


def objects_of(truth: GroundTruth, place: int) -> list[DrawnBox]:
    """Return the objects of an image."""
    rows = np.flatnonzero((truth.image_index == place) & ~truth.crowds)
    return [
        DrawnBox(tuple(truth.boxes[row]), truth.names[truth.category_index[row]], "truth")
        for row in rows
    ]


def judged(truth: GroundTruth, detections: np.ndarray) -> list[DrawnBox]:
    """Return the n detections of highest score on an image with n objects, judged at IoU .5.

    Args:
        truth: the ground truth.
        detections: ``[N, 7]`` of one image.
    """
    top, hits = top_detections(truth, detections, match_pairs(truth, detections))
    classes = np.searchsorted(truth.category_ids, detections[:, 6])
    return [
        DrawnBox(
            tuple(detections[row, 1:5]),
            truth.names[classes[row]],
            "right" if hits[row, 0] else "wrong",
        )
        for row in top
    ]
