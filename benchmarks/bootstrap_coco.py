"""Time and memory of a bootstrap over images for many result files of COCO's size.

    OMP_NUM_THREADS=1 python benchmarks/bootstrap_coco.py --files 30 --resamples 1000 --peer

Generates a ground truth like COCO's val2017 (5,000 images, 80 classes, about 36,000 boxes including
crowds) and result files with 50 detections per image. Then it reads and matches each file once, and
computes the AP of all files on every resample of the images. With `--peer`, hotcoco then bootstraps
one pair of the files in the same process (`compare()`).

Measured on two cores of an Intel Xeon, with one other process running:

    30 files: read and matched in 114 s, 1000 resamples in 369 s; 484 s in all (656 s of CPU),
    peak memory 1.18 GiB

and, with `--peer` on the same machine under more load (598 s of CPU for ours), hotcoco needed 196 s
of CPU for 1000 resamples of one pair of files.

Of the memory, 0.92 GiB was in use before the first file was read: imports and generator.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from hotcoco import COCO, COCOeval, compare

from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import match
from det_losses.evaluation.resampling import draw_counts, resample
from det_losses.evaluation.result_file import read_detections
from det_losses.evaluation.summary import ap_numbers

CLASSES = 80
WIDTH, HEIGHT = 640, 480
PER_IMAGE = 50
SIDES = ((4, 32), (32, 96), (96, 400))  # pixels, of small, medium and large boxes
SHARES = (0.41, 0.35, 0.24)


def make_truth(images: int) -> dict:
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


def make_box(rng: np.random.Generator) -> dict:
    """Draw a box; one in eighty is a crowd."""
    crowd = int(rng.random() < 1 / 80)
    side, aspect = rng.uniform(*SIDES[rng.choice(3, p=SHARES)]), np.exp(rng.normal(0, 0.4))
    w, h = min(side * aspect, WIDTH), min(side / aspect, HEIGHT)
    if crowd:
        w, h = rng.uniform(150, 500), rng.uniform(100, 300)
    x, y = rng.uniform(0, WIDTH - w), rng.uniform(0, HEIGHT - h)
    box = [round(value, 2) for value in (x, y, w, h)]
    return {"bbox": box, "area": box[2] * box[3], "iscrowd": crowd}


def make_detections(truth: dict, seed: int) -> list[dict]:
    """Make a result file: jittered boxes, and false positives up to 50 detections per image."""
    rng = np.random.default_rng([seed, 1])
    ids = np.array([[a["image_id"], a["category_id"]] for a in truth["annotations"]])
    boxes = np.array([a["bbox"] for a in truth["annotations"]])
    hits = np.repeat(np.arange(len(boxes)), rng.choice(3, len(boxes), p=(0.2, 0.5, 0.3)))
    missing = PER_IMAGE * len(truth["images"]) - len(hits)
    # A false positive is near an object and has its class in half of the cases.
    near = rng.integers(len(boxes), size=missing)
    wrong = ids[near].copy()
    odd = rng.random(missing) < 0.5
    wrong[odd, 1] = rng.integers(CLASSES, size=odd.sum())
    ids = np.concatenate([ids[hits], wrong]).tolist()
    quality = rng.exponential(0.05, (len(hits), 1))
    found = np.concatenate([jitter(rng, boxes[hits], quality), jitter(rng, boxes[near], 0.8)])
    # Better detections have higher scores on average.
    logits = np.concatenate([rng.normal(0.5 - 8 * quality[:, 0], 1), rng.normal(-2.5, 1, missing)])
    scores = (1 / (1 + np.exp(-logits))).tolist()
    return [
        dict(image_id=image_id, category_id=category_id, bbox=box, score=score)
        for (image_id, category_id), box, score in zip(
            ids, found.round(2).tolist(), scores, strict=True
        )
    ]


def jitter(rng: np.random.Generator, boxes: np.ndarray, amount: np.ndarray | float) -> np.ndarray:
    """Move and resize boxes (x, y, w, h) by about ``amount`` of their sides."""
    change = amount * rng.normal(size=boxes.shape)
    size = boxes[:, 2:] * np.exp(change[:, 2:])
    centre = boxes[:, :2] + boxes[:, 2:] * (0.5 + change[:, :2])
    return np.concatenate([centre - size / 2, size], axis=1)


def generate(folder: Path, images: int, files: int) -> tuple[Path, list[Path]]:
    """Write the ground truth and the result files."""
    truth, truth_file = make_truth(images), folder / "truth.json"
    truth_file.write_text(json.dumps(truth))
    crowds = sum(annotation["iscrowd"] for annotation in truth["annotations"])
    print(f"{images} images, {len(truth['annotations'])} boxes, {crowds} of them crowds")
    found = [folder / f"found_{seed}.json" for seed in range(files)]
    for seed, file in enumerate(found):
        file.write_text(json.dumps(make_detections(truth, seed)))
    return truth_file, found


def ours(truth_file: Path, files: list[Path], resamples: int, workers: int | None) -> None:
    """Match and resample all files, and print time and memory."""
    started, cpu = time.perf_counter(), time.process_time()
    truth = GroundTruth(truth_file)
    matches = [match(truth, read_detections(file, truth)) for file in files]
    matched = time.perf_counter()
    draws = resample(matches, draw_counts(len(truth.image_ids), resamples), workers)
    done, cpu = time.perf_counter(), time.process_time() - cpu
    first = ap_numbers(matches[0].average_precision(), truth.names)
    print("first file:", "  ".join(f"{name} {value:.4f}" for name, value in first.items()))
    print(f"its AP over {resamples} resamples: SD {draws['AP'][:, 0].std():.4f}")
    print(
        f"{len(files)} files: read and matched in {matched - started:.0f} s, "
        f"{resamples} resamples in {done - matched:.0f} s; {done - started:.0f} s in all "
        f"({cpu:.0f} s of CPU), peak memory {peak():.2f} GiB"
    )


def peer(truth_file: Path, files: list[Path], resamples: int) -> None:
    """Compare two files with hotcoco, and print the time."""
    started, cpu = time.perf_counter(), time.process_time()
    truth = COCO(str(truth_file))
    first, second = (COCOeval(truth, truth.load_res(str(file)), "bbox") for file in files)
    first.evaluate()
    second.evaluate()
    result = compare(first, second, n_bootstrap=resamples)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(f"hotcoco: AP of the first file {result['metrics_a']['AP']:.4f}")
    print(
        f"hotcoco: one pair of files, {resamples} resamples in {seconds:.0f} s ({cpu:.0f} s of CPU)"
    )


def peak() -> float:
    """Return the peak memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--workers", type=int, help="threads; default: one per core")
    parser.add_argument("--peer", action="store_true", help="also time hotcoco on the first pair")
    args = parser.parse_args()
    if args.peer and args.files < 2:
        parser.error("--peer compares two files: give --files 2 or more")
    with tempfile.TemporaryDirectory() as folder:
        truth_file, files = generate(Path(folder), args.images, args.files)
        print(f"memory after generating: {peak():.2f} GiB")
        ours(truth_file, files, args.resamples, args.workers)
        if args.peer:
            peer(truth_file, files[:2], args.resamples)


if __name__ == "__main__":
    main()
