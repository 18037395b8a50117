"""A comparison's directory without training: drawn images, and detections with known errors.

The localisation error of a detection is ``noise`` times the object's size, times a random factor of
the image and one of the seed. The errors of an object are correlated between variants and seeds, so
differences are paired. Less noise means a higher AP, especially at high IoU thresholds.
"""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from det_losses.evaluation.backends import hotcoco_curves
from det_losses.evaluation.summary import coco_numbers

WIDTH, HEIGHT = 160, 120
CATEGORIES = {3: "cat", 7: "dog", 18: "bird"}  # category id -> name, with gaps as COCO has them
COLOURS = {3: (200, 70, 60), 7: (60, 140, 80), 18: (70, 90, 200)}
SIDES = ((12, 28), (36, 70), (100, 116))  # pixels: small, medium and large for COCO
# EIoULoss is planted as far better, L1Loss as worse; the first two differ only by chance.
NOISE = {"SmoothL1Loss": 0.10, "GIoULoss": 0.10, "EIoULoss": 0.05, "L1Loss": 0.16}
EPOCHS, STEPS = 4, 20


def draw_truth(images: int, image_dir: Path, seed: int = 0) -> dict[str, Any]:
    """Return a COCO json and write its images; the last image has no object, the first a crowd."""
    rng = np.random.default_rng(seed)
    image_dir.mkdir(parents=True, exist_ok=True)
    truth: dict[str, Any] = {"images": [], "annotations": []}
    truth["categories"] = [{"id": key, "name": name} for key, name in CATEGORIES.items()]
    for number in range(images):
        entry = {"id": 10 + 3 * number, "file_name": f"{number:04d}.png"}
        truth["images"].append({**entry, "width": WIDTH, "height": HEIGHT})
        picture = Image.new("RGB", (WIDTH, HEIGHT), (150, 150, 140))
        for index in range(0 if number == images - 1 else int(rng.integers(1, 5))):
            category = int(rng.choice(list(CATEGORIES)))
            low, high = SIDES[int(rng.integers(3))]
            w, h = (round(float(side), 1) for side in rng.uniform(low, high, 2))
            x, y = (round(float(rng.uniform(1, s - 1)), 1) for s in (WIDTH - w, HEIGHT - h))
            crowd = int(number == 0 and index == 0)
            box = dict(category_id=category, bbox=[x, y, w, h], area=w * h, iscrowd=crowd)
            count = len(truth["annotations"]) + 1
            truth["annotations"].append(dict(id=count, image_id=entry["id"], **box))
            ImageDraw.Draw(picture).rectangle((x, y, x + w, y + h), fill=COLOURS[category])
        picture.save(image_dir / entry["file_name"])
    return truth


def draw_detections(truth: dict[str, Any], label: str, seed: int, noise: float) -> list[dict]:
    """Return a COCO result list of a run."""
    own = np.random.default_rng([seed, zlib.crc32(label.encode())])
    factor = float(np.exp(own.normal(0, 0.06)))
    found = []
    for image in truth["images"]:
        shared = np.random.default_rng([1, image["id"]])  # the same for all variants and seeds
        difficulty = float(np.exp(shared.normal(0, 0.4)))
        boxes = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        for box in boxes:
            x, y, w, h = box["bbox"]
            drawn = 0.8 * shared.normal(size=4) + 0.6 * own.normal(size=4)
            missed, confused = shared.uniform() < 0.08, own.uniform() < 0.05
            if box["iscrowd"] or missed:
                continue
            error = noise * factor * difficulty * drawn
            sizes = np.maximum(np.array([w, h]) * (1 + error[2:]), 2)
            corner = np.array([x + w * error[0], y + h * error[1]])
            category = int(own.choice(list(CATEGORIES))) if confused else box["category_id"]
            score = float(np.clip(0.9 - 0.5 * np.abs(error).mean() - 0.2 * own.uniform(), 0.05, 1))
            found.append(_entry(image, category, [*corner, *sizes], score))
        for _ in range(own.poisson(0.5)):
            sides, at = own.uniform(10, 60, 2), own.uniform(0, 60, 2)
            score = float(own.uniform(0.05, 0.6))
            found.append(_entry(image, int(own.choice(list(CATEGORIES))), [*at, *sides], score))
    return found


def coco_metrics(truth: dict[str, Any], found: list[dict]) -> dict[str, float | None]:
    """Return COCO's numbers for a result list, computed by hotcoco."""
    rows = [[d["image_id"], *d["bbox"], d["score"], d["category_id"]] for d in found]
    curves = hotcoco_curves(truth, np.array(rows).reshape(-1, 7), (1, 10, 100))
    numbers = coco_numbers(curves, list(CATEGORIES.values()), (1, 10, 100))
    return {name: None if np.isnan(value) else value for name, value in numbers.items()}


def write_comparison(
    root: Path,
    *,
    noise: dict[str, float] = NOISE,
    seeds: tuple[int, ...] = (0, 1, 2),
    images: int = 40,
    evaluations: int = 1,
    unfinished: dict[tuple[str, int], str] | None = None,
    meta: dict[str, Any] | None = None,
    factors: dict[str, dict[str, str]] | None = None,
    folds: int | None = None,
) -> Path:
    """Write results.json, ground_truth.json, images and runs; return ``root``.

    Args:
        root: the comparison's directory; the images are in ``root.parent / "images"``.
        noise: label -> localisation error as a part of the object's size; the first label is the
            baseline.
        seeds: of every variant.
        images: number of evaluated images.
        evaluations: detections files of a run, whose metrics are averaged.
        unfinished: (label, seed) -> "failed", "interrupted" or "pending".
        meta: entries that replace those of results.json's meta.
        factors: label -> slot -> what a two-factor grid calls it there.
        folds: number of folds; the run of a seed is evaluated on the images of its fold only.
    """
    image_dir = root.parent / "images"
    truth = draw_truth(images, image_dir)
    if folds:
        meta = {"folds": {"count": folds, "key": None}, **(meta or {})}
        for number, image in enumerate(truth["images"]):
            image["fold"] = number % folds
    _write(root / "ground_truth.json", truth)
    rows = []
    for seed in seeds:
        for label, error in noise.items():
            status = (unfinished or {}).get((label, seed), "done")
            part = fold_of(truth, seed % folds) if folds else truth
            rows.append(_write_run(root, part, label, seed, error, status, evaluations))
    stored = {**_meta(truth, list(noise), list(seeds), image_dir, factors or {}), **(meta or {})}
    _write(root / "results.json", {"meta": stored, "runs": rows})
    return root


def fold_of(truth: dict[str, Any], fold: int) -> dict[str, Any]:
    """Return the part of a COCO json with the images of a fold."""
    images = [image for image in truth["images"] if image["fold"] == fold]
    ids = [image["id"] for image in images]
    boxes = [box for box in truth["annotations"] if box["image_id"] in ids]
    return {**truth, "images": images, "annotations": boxes}


def _write_run(
    root: Path,
    truth: dict[str, Any],
    label: str,
    seed: int,
    noise: float,
    status: str,
    evaluations: int,
) -> dict[str, Any]:
    work_dir = root / "runs" / re.sub(r"[^\w.=-]+", "-", label) / f"seed_{seed}"
    built, proof = f"{label}(loss_weight=1.0)", {}
    row = dict(variant=label, seed=seed, status=status, error=None, metrics={}, built={}, proof={})
    row.update(dict.fromkeys(("train_seconds", "seconds_per_iteration", "peak_memory_mb")))
    row.update(initial_weights=None, work_dir=str(work_dir.relative_to(root)))
    row.update(peak_memory_kind="rss", detections=[], history="history.jsonl")
    if status != "done":
        row["error"] = "exit status 1\nValueError: broken" if status == "failed" else None
        return row
    files = ["detections.json", *(f"detections_{n}.json" for n in range(1, evaluations))]
    numbers = []
    for number, name in enumerate(files):
        found = draw_detections(truth, label + "." * number, seed, noise)
        _write(work_dir / name, found)
        numbers.append(coco_metrics(truth, found))
    means = {key: _mean([part[key] for part in numbers]) for key in numbers[0]}
    proof["loss_bbox"] = {"loss": built, "calls": EPOCHS * STEPS, "gradient": True}
    row.update(metrics=means, built={"loss_bbox": built}, proof=proof, detections=files)
    row.update(train_seconds=60.0 + seed, seconds_per_iteration=0.5 + noise, peak_memory_mb=512.25)
    row.update(initial_weights=f"{seed:x}" * 64)
    record = dict(status="done", seed=seed, losses=row["built"], metrics=means, proof=proof)
    record.update(epoch=EPOCHS, iter=EPOCHS * STEPS, max_epochs=EPOCHS)
    for key in ("train_seconds", "seconds_per_iteration", "peak_memory_mb", "peak_memory_kind"):
        record[key] = row[key]
    _write(work_dir / "metrics.json", {**record, "initial_weights": row["initial_weights"]})
    lines = _history(means, noise, seed)
    (work_dir / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return row


def _history(metrics: dict[str, float | None], noise: float, seed: int) -> list[dict[str, Any]]:
    """Return decreasing losses, and an AP that increases to the final one."""
    lines = []
    for step in range(10, EPOCHS * STEPS + 1, 10):
        at = {"step": step, "epoch": (step - 1) // STEPS + 1, "seconds": step * (0.5 + noise)}
        box, cls = (0.4 + noise) * np.exp(-step / 40), (0.9 + 0.02 * seed) * np.exp(-step / 60)
        losses = {"loss": box + cls, "loss_cls": cls, "loss_bbox": box}
        lines.append({"kind": "train", **at, "losses": losses})
        if step % STEPS == 0:
            rise = (step / (EPOCHS * STEPS)) ** 0.5
            reached = {k: None if v is None else v * rise for k, v in metrics.items()}
            lines.append({"kind": "val", **at, "metrics": reached})
    return lines


def _meta(
    truth: dict[str, Any],
    labels: list[str],
    seeds: list[int],
    image_dir: Path,
    factors: dict[str, dict[str, str]],
) -> dict[str, Any]:
    boxes = [a for a in truth["annotations"] if not a["iscrowd"]]
    small = sum(box["area"] < 32**2 for box in boxes)
    large = sum(box["area"] > 96**2 for box in boxes)
    counts = {n: sum(box["category_id"] == key for box in boxes) for key, n in CATEGORIES.items()}
    variants = {
        label: {
            "changes": {"model.loss_bbox": {"type": label.partition(":")[0], "loss_weight": 1.0}},
            "source": f"source of {label}",
            "factors": factors.get(label, {"loss_bbox": label}),
            "weight": {
                "how": "published",
                "multiple": 1.0,
                "gradient_norm": None,
                "initial_gradient_norm": None,
            },
        }
        for label in labels
    }
    return {
        "detector": "RetinaNet",
        "components": ["loss_bbox"],
        "baseline": labels[0],
        "metric": "AP",
        "resamples": 100,
        "variants": variants,
        "seeds": seeds,
        "hash": "ab" * 32,
        "config": "quickstart/retinanet_shapes",
        "classes": list(CATEGORIES.values()),
        "images": {"train": 100, "val": len(truth["images"])},
        "image_dir": str(image_dir.absolute()),
        "val_boxes": {
            "all": len(boxes),
            "small": small,
            "medium": len(boxes) - small - large,
            "large": large,
            "by_class": counts,
        },
        "versions": {"det_losses": "0.1.0", "python": "3.11", "torch": "2.15"},
        "hardware": {
            "system": "Linux x86_64",
            "cpu": "some CPU",
            "threads": 2,
            "gpus": [],
            "memory": "peak memory is the resident size of the training process",
        },
        "command": f"python -m det_losses compare x --losses {' '.join(labels)}",
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T04:05:06+00:00",
        "notes": [],
    }


def _entry(image: dict[str, Any], category: int, box: list[float], score: float) -> dict[str, Any]:
    rounded = [round(float(value), 3) for value in box]
    return dict(image_id=image["id"], category_id=category, bbox=rounded, score=round(score, 4))


def _mean(values: list[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
