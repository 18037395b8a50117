"""CocoMetric against pycocotools on real COCO boxes, and against numbers derived by hand."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
import torch
from coco_cases import part_of
from mmengine.registry import DefaultScope
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from det_losses.evaluation.coco_metric import CocoMetric
from det_losses.registry import METRICS

META = {"classes": ("cat", "dog"), "category_ids": (17, 18)}
TWELVE = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()


def truth(image_id, *boxes):
    """An image's ground truth; each box is (category id, [x, y, w, h], other fields)."""
    annotations = [
        dict(image_id=image_id, category_id=category, bbox=box, area=box[2] * box[3], iscrowd=0)
        | other
        for category, box, other in boxes
    ]
    return {"image": dict(id=image_id, width=200, height=200), "annotations": annotations}


def prediction(*rows, dtype=torch.float32):
    """Rows of (label, score, [x1, y1, x2, y2])."""
    return {
        "boxes": torch.tensor([row[2] for row in rows], dtype=dtype).reshape(-1, 4),
        "scores": torch.tensor([row[1] for row in rows], dtype=dtype),
        "labels": torch.tensor([row[0] for row in rows], dtype=torch.int64),
    }


def evaluate(pairs, meta=META, batch_size=3, **options):
    metric = METRICS.build(dict(type="CocoMetric", **options))
    metric.dataset_meta = meta
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        targets = [{"coco": coco} for coco, _ in batch]
        metric.process({"images": [], "targets": targets}, [found for _, found in batch])
    return metric.evaluate(len(pairs))


@pytest.fixture(scope="module", params=[60, pytest.param(400, marks=pytest.mark.slow)])
def real(request, coco_subset):
    """COCO's val boxes as ground truth, and shifted, resized and mislabelled ones as detections."""
    coco = json.loads((coco_subset / "instances_val.json").read_text())
    coco = part_of(coco, request.param)
    # Labels in descending order of the official ids: label and id must not be mixed up.
    categories = sorted(coco["categories"], key=lambda c: -c["id"])
    label = {c["id"]: index for index, c in enumerate(categories)}
    rng = np.random.default_rng(0)
    pairs = []
    for image in coco["images"]:
        own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        rows = []
        for annotation in own:
            x, y, w, h = annotation["bbox"]
            for _ in range(3):
                x1, y1, x2, y2 = rng.normal([x, y, x + w, y + h], 0.1 * np.array([w, h, w, h]))
                kind = label[annotation["category_id"]]
                kind = kind if rng.random() < 0.8 else int(rng.integers(len(label)))
                # One digit: equal scores must be ordered alike by both.
                rows.append((kind, round(rng.random(), 1), [x1, y1, max(x1, x2), max(y1, y2)]))
        pairs.append(({"image": image, "annotations": own}, prediction(*rows)))
    meta = {
        "classes": tuple(c["name"] for c in categories),
        "category_ids": tuple(c["id"] for c in categories),
    }
    assert sum(a["iscrowd"] for a in coco["annotations"]) > 10
    return pairs, meta, coco


def test_backends_agree_on_real_boxes(real):
    pairs, meta, _ = real
    fast = evaluate(pairs, meta)
    reference = evaluate(pairs, meta, backend="pycocotools")
    assert fast.keys() == reference.keys()
    assert len(fast) == 14 + 80
    for name, value in reference.items():
        assert fast[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    assert 0.1 < fast["AP"] < 0.9


def test_the_twelve_metrics_equal_pycocotools_on_the_written_file(real, tmp_path):
    pairs, meta, truth = real
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    numbers = evaluate(pairs, meta, out_file=str(tmp_path / "found" / "bbox.json"))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "found" / "bbox.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    for name, value in zip(TWELVE, evaluation.stats, strict=True):
        assert numbers[name] == pytest.approx(value, abs=1e-9), name
    names = {category["id"]: category["name"] for category in coco.dataset["categories"]}
    for index, category_id in enumerate(evaluation.params.catIds):
        # Over IoU thresholds and recalls, of all areas, with 100 detections; -1 without any box.
        value = evaluation.eval["precision"][:, :, index, 0, 2].mean()
        got = numbers[f"AP/{names[category_id]}"]
        assert (-1 if math.isnan(got) else got) == pytest.approx(value, abs=1e-9), category_id
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["bbox.json"]


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
class TestByHand:
    def test_box_of_iou_085(self, backend):
        # 100 x 100 against 100 x 85 inside it: IoU 0.85, a hit at 0.50..0.85, 8 of 10 thresholds.
        pairs = [(truth(1, (17, [0, 0, 100, 100], {})), prediction((0, 0.9, [0, 0, 100, 85])))]
        numbers = evaluate(pairs, backend=backend)
        expected = dict(AP=0.8, AP50=1, AP75=1, AP80=1, AP90=0, APl=0.8, AR1=0.8, ARl=0.8)
        for name, value in expected.items():
            assert numbers[name] == pytest.approx(value, abs=1e-12), name
        # No dog and no small or medium box exists: not available, and in no mean.
        for name in ("AP/dog", "APs", "APm", "ARs", "ARm"):
            assert math.isnan(numbers[name]), name
        assert all(type(value) is float for value in numbers.values())

    def test_no_detection_at_all_is_zero(self, backend):
        numbers = evaluate([(truth(7, (18, [5, 5, 20, 10], {})), prediction())], backend=backend)
        assert numbers["AP"] == numbers["AR100"] == numbers["APs"] == numbers["AP/dog"] == 0
        assert math.isnan(numbers["AP/cat"])

    def test_no_ground_truth_at_all_is_nan(self, backend):
        pairs = [(truth(7), prediction((0, 0.5, [0, 0, 5, 5])))]
        assert all(math.isnan(value) for value in evaluate(pairs, backend=backend).values())

    def test_false_positive_on_an_image_without_boxes_counts(self, backend):
        hit = (truth(1, (17, [0, 0, 50, 40], {})), prediction((0, 0.5, [0, 0, 50, 40])))
        wrong = (truth(2), prediction((0, 0.9, [0, 0, 50, 40])))
        # The better scored detection is wrong: precision 1/2 at every recall.
        assert evaluate([hit, wrong], backend=backend)["AP"] == pytest.approx(0.5)

    def test_crowd_takes_any_number_of_detections(self, backend):
        pairs = [
            (
                truth(
                    1,
                    (17, [0, 0, 50, 40], {}),
                    (17, [100, 100, 90, 80], {"iscrowd": 1}),
                ),
                prediction(
                    (0, 0.9, [100, 100, 120, 130]),
                    (0, 0.8, [130, 110, 150, 140]),
                    (0, 0.5, [0, 0, 50, 40]),
                ),
            )
        ]
        assert evaluate(pairs, backend=backend)["AP"] == pytest.approx(1)

    def test_area_is_the_annotations(self, backend):
        # 50 x 40 = 2000 pixels^2 would be medium; the mask's area of 900 < 32^2 makes it small.
        pairs = [
            (truth(1, (17, [0, 0, 50, 40], {"area": 900.0})), prediction((0, 0.5, [0, 0, 50, 40])))
        ]
        numbers = evaluate(pairs, backend=backend)
        assert numbers["APs"] == pytest.approx(1)
        assert math.isnan(numbers["APm"])

    def test_image_seen_twice_counts_once(self, backend):
        hit = (truth(1, (17, [0, 0, 50, 40], {})), prediction((0, 0.5, [0, 0, 50, 40])))
        miss = (truth(2, (17, [0, 0, 50, 40], {})), prediction())
        # One of two boxes found: precision 1 up to recall 0.5, 51 of the 101 recalls 0, .01, ...
        assert evaluate([hit, miss], backend=backend)["AP"] == pytest.approx(51 / 101)
        # Counted twice, two of three boxes would be found: 67 of 101 recalls.
        assert evaluate([hit, miss, hit], backend=backend)["AP"] == pytest.approx(51 / 101)

    def test_max_dets(self, backend):
        rows = [(0, 0.9 - 0.01 * i, [100, 100, 120, 130]) for i in range(11)]
        pairs = [(truth(1, (17, [0, 0, 50, 40], {})), prediction(*rows, (0, 0.1, [0, 0, 50, 40])))]
        # The hit is the twelfth detection.
        numbers = evaluate(pairs, backend=backend, max_dets=11)
        assert numbers["AR11"] == 0
        assert "AR100" not in numbers
        assert evaluate(pairs, backend=backend)["AR100"] == 1

    def test_nothing_is_printed(self, backend, capfd):
        with contextlib.redirect_stdout(io.StringIO()) as table:
            evaluate([(truth(1, (17, [0, 0, 9, 9], {})), prediction())], backend=backend)
        assert capfd.readouterr().out == ""
        assert "DONE" not in table.getvalue()


def test_half_precision_predictions():
    found = prediction((0, 0.5, [0, 0, 64, 32]), dtype=torch.bfloat16)
    assert evaluate([(truth(1, (17, [0, 0, 64, 32], {})), found)])["AP"] == pytest.approx(1)


def test_scores_and_boxes_are_written_unrounded(tmp_path):
    found = prediction((1, 1 / 3, [1 / 7, 2 / 7, 20 / 7, 31 / 7]))
    out_file = tmp_path / "bbox.json"
    evaluate([(truth(1, (17, [0, 0, 9, 9], {})), found)], out_file=str(out_file))
    (entry,) = json.loads(out_file.read_text())
    x1, y1, x2, y2 = found["boxes"].double()[0].tolist()
    assert entry == {
        "image_id": 1,
        "category_id": 18,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": found["scores"].double().item(),
    }


def test_prefix_and_default_scope():
    with DefaultScope.overwrite_default_scope("det_losses"):
        numbers = evaluate([(truth(1, (17, [0, 0, 9, 9], {})), prediction())], prefix="val2017")
    assert numbers["val2017/AP"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(backend="lvis"), r"backend must be one of \['hotcoco', 'pycocotools'\], got 'lvis'"),
        (dict(max_dets=10), "max_dets must be greater than 10, got 10"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        CocoMetric(**options)


NAN = float("nan")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (prediction((0, 0.5, [0, 0, NAN, 4])), "image 3: a predicted box or score is NaN"),
        (prediction((0, NAN, [0, 0, 4, 4])), "image 3: a predicted box or score is NaN"),
        (
            prediction((2, 0.5, [0, 0, 4, 4])),
            r"image 3: predicted labels must be in 0\.\.1, got 2",
        ),
        (prediction((-1, 0.5, [0, 0, 4, 4])), r"labels must be in 0\.\.1, got -1"),
        (prediction() | {"image_id": 4}, "image 3 got those of image 4"),
    ],
)
def test_bad_predictions(found, message):
    with pytest.raises(ValueError, match=message):
        evaluate([(truth(3), found)])


def test_missing_ground_truth_or_metainfo():
    metric = CocoMetric()
    with pytest.raises(ValueError, match="metainfo with 'classes' and 'category_ids'"):
        metric.process({"targets": [{"coco": truth(3)}]}, [prediction()])
    metric.dataset_meta = META
    with pytest.raises(ValueError, match="test_mode=True"):
        metric.process({"targets": [{}]}, [prediction()])
