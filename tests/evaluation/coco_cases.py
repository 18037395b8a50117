"""COCO data to evaluate, and pycocotools' own evaluation of it."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# Ids with gaps, not in order; nothing is a zebra.
CATEGORIES = ({"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 24, "name": "zebra"})
SIDES = np.array([10, 18, 30, 34, 60, 90, 120, 150])  # small, medium and large boxes


def random_case(seed, images=20, per_image=9, ties=False):
    """Return a ground truth with crowds and boxes alike, and detections ``[N, 7]`` near it.

    Coordinates are whole numbers, so that IoUs are often equal. Scores are distinct, or with
    ``ties`` one of five.
    """
    rng = np.random.default_rng(seed)
    ids = rng.permutation(10 * images)[:images] + 1
    annotations, rows = [], []
    for image_id in ids.tolist():
        for _ in range(rng.integers(0, 5)):
            w, h = rng.choice(SIDES, 2).tolist()
            x, y = rng.integers(0, 120, 2).tolist()
            category = int(rng.choice([18, 3]))
            # A second truth of the same box, or beside it at the same distance from a detection.
            for offset in [0] if rng.random() < 0.6 else [0, int(rng.choice([0, 4]))]:
                crowd = int(rng.random() < 0.15)
                # A mask is smaller than its box: 34 x 34 pixels may be a small object.
                area = w * h * (1 if rng.random() < 0.5 else 0.7)
                entry = dict(id=len(annotations) + 1, image_id=image_id, category_id=category)
                box = [x + offset, y, w, h]
                annotations.append(entry | dict(bbox=box, area=area, iscrowd=crowd))
                for _ in range(rng.integers(0, 4)):
                    jitter = rng.integers(-3, 4, 4) * (rng.random(4) < 0.5)
                    rows.append([image_id, *(np.array(box) + jitter), 0, category])
            if rng.random() < 0.3:
                rows.append([image_id, x + 2, y, w, h, 0, category])
        for _ in range(rng.integers(0, per_image)):
            box = [*rng.integers(0, 120, 2), *rng.choice(SIDES, 2)]
            rows.append([image_id, *box, 0, rng.choice([18, 3, 24])])
    detections = np.array(rows, dtype=float).reshape(-1, 7)[rng.permutation(len(rows))]
    scores = np.arange(len(rows)) / len(rows)
    detections[:, 5] = rng.integers(0, 5, len(rows)) / 5 if ties else rng.permutation(scores)
    return coco_json(ids.tolist(), annotations), detections


def coco_json(image_ids, annotations, categories=CATEGORIES):
    images = [dict(id=i, file_name=f"{i}.jpg", width=300, height=300) for i in image_ids]
    return {"images": images, "annotations": annotations, "categories": list(categories)}


def pycocotools_evaluation(coco, detections, max_dets):
    """Return a COCOeval of detections ``[N, 7]`` after its matching."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = coco
        truth.createIndex()
        if len(detections):
            entries = [
                dict(image_id=int(row[0]), category_id=int(row[6]), bbox=row[1:5], score=row[5])
                for row in detections.tolist()
            ]
            found = truth.loadRes(entries)
        else:  # loadRes fails without any
            found.dataset = {**coco, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.maxDets = [max_dets]
        evaluation.evaluate()
    return evaluation


def reference(coco, detections, max_dets=100):
    """Return pycocotools' average precision ``[T, K, A]``, NaN where it has -1."""
    evaluation = pycocotools_evaluation(coco, detections, max_dets)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0]
    return np.where(precision[:, 0] < 0, np.nan, precision.mean(axis=1))


def reference_pairs(coco, detections, max_dets):
    """Return pycocotools' matches as {(threshold index, row of detections): row of annotations}."""
    evaluation = pycocotools_evaluation(coco, detections, max_dets)
    of_all_sizes = list(evaluation.params.areaRng[0])
    pairs = {}
    for image in evaluation.evalImgs:
        if image is not None and list(image["aRng"]) == of_all_sizes:
            # Both count from 1: loadRes numbers the detections, random_case the annotations.
            for threshold, column in zip(*np.nonzero(image["dtMatches"]), strict=True):
                annotation = image["dtMatches"][threshold, column]
                pairs[int(threshold), image["dtIds"][column] - 1] = int(annotation) - 1
    return pairs


def part_of(coco, images):
    """Return so many images of a COCO json, those with crowds first."""
    crowds = {entry["image_id"] for entry in coco["annotations"] if entry["iscrowd"]}
    chosen = sorted(coco["images"], key=lambda image: image["id"] not in crowds)[:images]
    ids = {image["id"] for image in chosen}
    annotations = [entry for entry in coco["annotations"] if entry["image_id"] in ids]
    return {**coco, "images": chosen, "annotations": annotations}


def copied(coco, detections, counts):
    """Return a dataset with ``counts`` copies of each image, with new ids.

    Args:
        coco: a ground truth.
        detections: ``[N, 7]``.
        counts: multiplicity of each image by ascending id.
    """
    images, annotations, rows = [], [], [np.empty((0, 7))]
    for image, count in zip(sorted(coco["images"], key=lambda i: i["id"]), counts, strict=True):
        for _ in range(count):
            new = len(images) + 1
            images.append(image | dict(id=new))
            for annotation in coco["annotations"]:
                if annotation["image_id"] == image["id"]:
                    annotations.append(annotation | dict(id=len(annotations) + 1, image_id=new))
            own = detections[detections[:, 0] == image["id"]].copy()
            own[:, 0] = new
            rows.append(own)
    return {**coco, "images": images, "annotations": annotations}, np.concatenate(rows)
