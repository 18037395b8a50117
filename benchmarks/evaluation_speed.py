"""Time and memory of evaluations of COCO's size: the metric, the bootstrap and the report.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_speed.py metric
    OMP_NUM_THREADS=1 python benchmarks/evaluation_speed.py bootstrap --losses 10 --seeds 3
    OMP_NUM_THREADS=1 python benchmarks/evaluation_speed.py report --losses 10 --seeds 3

The data are generated: a ground truth like COCO's val2017 (5,000 images, 80 classes, about 36,000
boxes with crowds) and 100 detections per image, which are jittered boxes and false positives.

- `metric`: from the predictions of each batch to COCO's numbers, `CocoMetric` against pycocotools,
  in turn in one process; the numbers are compared.
- `bootstrap`: result files are read and matched, and the AP of all of them is computed on every
  resample of the images, as a report does it that finds no cache.
- `report`: `det-losses report` on the directory of a comparison, twice: without and with caches.
"""

import argparse
import contextlib
import io
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from det_losses.evaluation.coco_metric import CocoMetric
from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import match
from det_losses.evaluation.resampling import draw_counts, resample
from det_losses.evaluation.result_file import read_detections
from det_losses.evaluation.summary import ap_numbers

CLASSES = 80
WIDTH, HEIGHT = 640, 480
PER_IMAGE = 100
BATCH = 16
SIDES = ((4, 32), (32, 96), (96, 400))  # pixels, of small, medium and large boxes
SHARES = (0.41, 0.35, 0.24)
TWELVE = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()


def make_truth(images: int) -> dict[str, list]:
    """Make a ground truth with COCO's number of classes, boxes per image and mix of sizes."""
    rng = np.random.default_rng(0)
    # The first class is as frequent as COCO's persons; the others fall off as in COCO.
    popularity = 1 / np.arange(3, CLASSES + 3)
    popularity[0] = 0.45 * popularity[1:].sum()
    popularity /= popularity.sum()
    annotations = []
    for image_id in range(1, images + 1):
        for category in rng.choice(CLASSES, 1 + rng.poisson(1.8), replace=False, p=popularity):
            for _ in range(rng.geometric(0.39)):
                found = dict(id=len(annotations) + 1, image_id=image_id, category_id=int(category))
                annotations.append(found | make_box(rng))
    names = [f"{image_id:012}.jpg" for image_id in range(1, images + 1)]
    return {
        "images": [
            dict(id=image_id, file_name=name, width=WIDTH, height=HEIGHT)
            for image_id, name in enumerate(names, 1)
        ],
        "annotations": annotations,
        "categories": [dict(id=k, name=f"class {k}") for k in range(CLASSES)],
    }


def make_box(rng: np.random.Generator) -> dict[str, Any]:
    """Draw a box; one in eighty is a crowd."""
    crowd = int(rng.random() < 1 / 80)
    side, aspect = rng.uniform(*SIDES[rng.choice(3, p=SHARES)]), np.exp(rng.normal(0, 0.4))
    w, h = min(side * aspect, WIDTH), min(side / aspect, HEIGHT)
    if crowd:
        w, h = rng.uniform(150, 500), rng.uniform(100, 300)
    x, y = rng.uniform(0, WIDTH - w), rng.uniform(0, HEIGHT - h)
    box = [round(value, 2) for value in (x, y, w, h)]
    return {"bbox": box, "area": box[2] * box[3], "iscrowd": crowd}


def make_predictions(truth: dict[str, list], seed: int) -> list[dict[str, torch.Tensor]]:
    """Make the predictions of each image: jittered boxes, and false positives up to PER_IMAGE.

    A false positive is near a box of its image, and has its class in half of the cases.
    """
    rng = np.random.default_rng([seed, 1])
    image = np.array([a["image_id"] for a in truth["annotations"]])
    label = np.array([a["category_id"] for a in truth["annotations"]])
    boxes = np.array([a["bbox"] for a in truth["annotations"]])
    predictions = []
    for entry in truth["images"]:
        own = np.flatnonzero(image == entry["id"])
        hits = np.repeat(own, rng.choice(3, len(own), p=(0.2, 0.5, 0.3)))[:PER_IMAGE]
        near = rng.choice(own, PER_IMAGE - len(hits))
        labels = label[np.concatenate([hits, near])]
        odd = np.flatnonzero(rng.random(len(near)) < 0.5) + len(hits)
        labels[odd] = rng.integers(CLASSES, size=len(odd))
        quality = rng.exponential(0.05, (len(hits), 1))
        found = np.concatenate([jitter(rng, boxes[hits], quality), jitter(rng, boxes[near], 0.8)])
        # Better detections have higher scores on average.
        means = np.concatenate([0.5 - 8 * quality[:, 0], np.full(len(near), -2.5)])
        scores = 1 / (1 + np.exp(-rng.normal(means, 1)))
        order = np.argsort(-scores)
        predictions.append(
            {
                "boxes": torch.from_numpy(found[order].astype(np.float32)),
                "scores": torch.from_numpy(scores[order].astype(np.float32)),
                "labels": torch.from_numpy(labels[order]),
            }
        )
    return predictions


def jitter(rng: np.random.Generator, boxes: np.ndarray, amount: np.ndarray | float) -> np.ndarray:
    """Move and resize boxes (x, y, w, h) by about ``amount`` of their sides; return corners."""
    change = amount * rng.normal(size=boxes.shape)
    size = boxes[:, 2:] * np.exp(change[:, 2:])
    centre = boxes[:, :2] + boxes[:, 2:] * (0.5 + change[:, :2])
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1)


def result_entries(truth: dict[str, list], predictions: list[dict]) -> list[dict[str, Any]]:
    """Return predictions as the entries of a COCO result file."""
    entries = []
    for image, found in zip(truth["images"], predictions, strict=True):
        columns = (found[name].double().tolist() for name in ("boxes", "scores", "labels"))
        entries += [
            dict(
                image_id=image["id"],
                category_id=int(label),
                bbox=[x1, y1, x2 - x1, y2 - y1],
                score=score,
            )
            for (x1, y1, x2, y2), score, label in zip(*columns, strict=True)
        ]
    return entries


def metric(args: argparse.Namespace) -> None:
    """Compare `CocoMetric` with pycocotools, and print the table."""
    truth = make_truth(args.images)
    predictions = make_predictions(truth, 0)
    own: dict[int, list] = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        own[annotation["image_id"]].append(annotation)
    targets = [dict(coco=dict(image=i, annotations=own[i["id"]])) for i in truth["images"]]
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = truth
        index.createIndex()
    ways = {
        "pycocotools": lambda: with_pycocotools(truth, index, predictions),
        "CocoMetric": lambda: with_metric(truth, targets, predictions, None),
        "CocoMetric, with out_file": lambda: with_metric(truth, targets, predictions, args.folder),
    }
    numbers = {}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, way in ways.items():
            numbers[name], *spent = timed(way)
            times[name].append(tuple(spent))
    print(f"{len(truth['images'])} images, {len(truth['annotations'])} boxes")
    print("| | s | CPU s | pycocotools / ours | largest difference |\n|---|---|---|---|---|")
    base, reference = statistics.median(s for s, _ in times["pycocotools"]), numbers["pycocotools"]
    for name, spent in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*spent, strict=True))
        error = max(abs(numbers[name][key] - reference[key]) for key in TWELVE)
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {base / wall:.1f} | {error:.1g} |")


def with_metric(
    truth: dict[str, list], targets: list[dict], predictions: list[dict], folder: str | None
) -> dict[str, float]:
    """Evaluate by CocoMetric, batch by batch."""
    evaluator = CocoMetric(out_file=f"{folder}/found.json" if folder else None)
    names = tuple(category["name"] for category in truth["categories"])
    evaluator.dataset_meta = dict(classes=names, category_ids=tuple(range(CLASSES)))
    for start in range(0, len(targets), BATCH):
        part = slice(start, start + BATCH)
        evaluator.process(dict(targets=targets[part]), predictions[part])
    with contextlib.redirect_stdout(io.StringIO()):
        return evaluator.evaluate(len(targets))


def with_pycocotools(
    truth: dict[str, list], index: COCO, predictions: list[dict]
) -> dict[str, float]:
    """Evaluate by pycocotools; the index of the ground truth is given."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(index, index.loadRes(result_entries(truth, predictions)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(TWELVE, evaluation.stats.tolist(), strict=True))


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return the value of a function, and its seconds and CPU seconds."""
    started, cpu = time.perf_counter(), time.process_time()
    value = function()
    return value, time.perf_counter() - started, time.process_time() - cpu


def bootstrap(args: argparse.Namespace) -> None:
    """Match and resample all result files, and print time and memory."""
    truth_file, files = generate(Path(args.folder), args)
    print(f"memory after generating: {peak():.2f} GiB")
    truth = GroundTruth(truth_file)
    matches, parts = [], []
    for file in files:
        found, *reading = timed(lambda file=file: read_detections(file, truth))
        own, *matching = timed(lambda found=found: match(truth, found))
        matches.append(own)
        parts.append((reading, matching))
    reading, matching = np.sum(parts, axis=0)
    counts = draw_counts(len(truth.image_ids), args.resamples)
    draws, *drawing = timed(lambda: resample(matches, counts, args.workers))
    print(f"{len(files)} files, {args.resamples} resamples\n| | s | CPU s |\n|---|---|---|")
    for name, spent in (("read", reading), ("match", matching), ("resample", drawing)):
        print(f"| {name} | {spent[0]:.1f} | {spent[1]:.1f} |")
    print(f"peak memory {peak():.2f} GiB")
    numbers = ap_numbers(matches[0].average_precision(), truth.names)
    print("first file:", "  ".join(f"{n} {v:.6f}" for n, v in numbers.items() if "/" not in n))
    print(f"its AP over the resamples: SD {draws['AP'][:, 0].std():.17g}")
    if args.out:
        np.savez(args.out, **draws)


def report(args: argparse.Namespace) -> None:
    """Write the report of a comparison twice, and print the time and memory of the command."""
    folder = Path(args.folder)
    truth_file, files = generate(folder, args)
    work_dir = write_comparison(folder / "comparison", truth_file, files, args)
    print("| report | s | CPU s | peak memory, GiB |\n|---|---|---|---|")
    for state in ("without caches", "with caches"):
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "det_losses", "report", str(work_dir)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        spent, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"| {state} | {spent:.1f} | {cpu:.1f} | {after.ru_maxrss / 2**20:.2f} |", flush=True)


def write_comparison(
    root: Path, truth_file: Path, files: list[Path], args: argparse.Namespace
) -> Path:
    """Write a comparison's directory with these result files; its images are one noisy picture."""
    shutil.rmtree(root, ignore_errors=True)
    truth = json.loads(truth_file.read_text())
    root.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(root / "image.jpg")
    truth["images"] = [{**image, "file_name": "image.jpg"} for image in truth["images"]]
    (root / "ground_truth.json").write_text(json.dumps(truth))
    labels = [f"Loss{number}" for number in range(args.losses)]
    names = [category["name"] for category in truth["categories"]]
    metrics = dict.fromkeys([*TWELVE, *(f"AP/{name}" for name in names)], 0.4)
    runs = []
    for number, file in enumerate(files):
        label, seed = labels[number // args.seeds], number % args.seeds
        own = root / "runs" / label / f"seed_{seed}"
        own.mkdir(parents=True)
        (own / "detections.json").symlink_to(file)
        (own / "history.jsonl").write_text("".join(json.dumps(e) + "\n" for e in history(metrics)))
        row = dict(variant=label, seed=seed, status="done", metrics=metrics, built={}, proof={})
        runs.append({**row, "work_dir": str(own.relative_to(root)), "history": "history.jsonl"})
    variants = {label: {"changes": {}, "factors": {"loss_bbox": label}} for label in labels}
    meta = dict(variants=variants, baseline=labels[0], seeds=list(range(args.seeds)))
    meta |= dict(classes=names, image_dir=str(root), detector="RetinaNet", resamples=args.resamples)
    (root / "results.json").write_text(json.dumps(dict(meta=meta, runs=runs)))
    return root


def history(metrics: dict[str, float]) -> list[dict[str, Any]]:
    """Return the lines of a training of 12 epochs of 7,330 steps."""
    lines = []
    for epoch in range(1, 13):
        for step in range(7330 * (epoch - 1) + 50, 7330 * epoch, 50):
            losses = {name: 1000 / (step + 900) for name in ("loss", "loss_cls", "loss_bbox")}
            lines.append(dict(kind="train", step=step, epoch=epoch, losses=losses))
        reached = {name: value * (epoch / 12) ** 0.5 for name, value in metrics.items()}
        lines.append(dict(kind="val", step=7330 * epoch, epoch=epoch, metrics=reached))
    return lines


def generate(folder: Path, args: argparse.Namespace) -> tuple[Path, list[Path]]:
    """Write the ground truth and the result files, unless the folder has them."""
    truth_file = folder / "truth.json"
    if not truth_file.exists():
        truth_file.write_text(json.dumps(make_truth(args.images)))
    truth = json.loads(truth_file.read_text())
    files = [folder / f"found_{seed}.json" for seed in range(args.losses * args.seeds)]
    for seed, file in enumerate(files):
        if not file.exists():
            file.write_text(json.dumps(result_entries(truth, make_predictions(truth, seed))))
    return truth_file, files


def peak() -> float:
    """Return the peak memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("metric", "bootstrap", "report"))
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--losses", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="of the metric")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--workers", type=int, help="threads; default: one per core")
    parser.add_argument("--folder", help="of the generated files; default: a temporary one")
    parser.add_argument("--out", help="write the bootstrapped values to this .npz")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        args.folder = args.folder or folder
        Path(args.folder).mkdir(parents=True, exist_ok=True)
        dict(metric=metric, bootstrap=bootstrap, report=report)[args.what](args)


if __name__ == "__main__":
    main()
