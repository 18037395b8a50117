"""The numbers of an evaluation, and the table that it logs."""

import math

import numpy as np
import pytest
from coco_cases import CATEGORIES, coco_json

from det_losses.evaluation.backends import Curves
from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.matching import match
from det_losses.evaluation.metrics import METRICS
from det_losses.evaluation.summary import (
    ap_numbers,
    coco_numbers,
    count_boxes,
    format_table,
    metric_names,
)


def numbers_of(names, per_class):
    """Numbers where each class has one AP everywhere, -1 for a class without ground truth."""
    shape = (10, 101, len(names), 4, 3)
    precision = np.broadcast_to(np.array(per_class)[:, None, None], shape)
    return coco_numbers(Curves(precision, precision[:, 0]), names, (1, 10, 100))


def test_the_names_of_the_numbers_are_known_before_an_evaluation():
    assert metric_names(["a", "b"], (1, 10, 100)) == list(numbers_of(["a", "b"], [0.5, 0.7]))


def test_numbers_of_one_box():
    # 100 x 85 inside 100 x 100: IoU 0.85, a hit at 8 of 10 thresholds, and large.
    entry = dict(id=1, image_id=1, category_id=3, bbox=[0, 0, 100, 100])
    truth = GroundTruth(coco_json([1], [entry], CATEGORIES[1:2]))
    ap = match(truth, np.array([[1, 0, 0, 100, 85, 0.9, 3]])).average_precision()
    found = ap_numbers(ap, ["car"])
    assert tuple(found) == (*METRICS, "AP/car")
    expected = dict(AP=0.8, AP50=1, AP75=1, AP80=1, AP90=0, APl=0.8)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert math.isnan(found["APs"])
    assert math.isnan(found["APm"])


def test_classes_without_ground_truth_are_in_no_mean_of_ap():
    ap = np.full((10, 2, 4), np.nan)
    ap[:, 0] = 0.5
    found = ap_numbers(ap, ["car", "dog"])
    assert math.isnan(found.pop("AP/dog"))
    assert found == dict.fromkeys((*METRICS, "AP/car"), 0.5)


def test_means_leave_out_what_has_no_ground_truth():
    numbers = numbers_of(["cat", "dog", "bird"], [0.25, -1, 0.75])
    assert numbers["AP"] == numbers["AP90"] == numbers["ARm"] == 0.5  # (0.25 + 0.75) / 2
    assert math.isnan(numbers["AP/dog"])


def test_counts_leave_out_crowds_and_use_both_ends_of_a_range():
    boxes = [(17, 32**2, 0), (17, 5.0, 0), (18, 96**2, 1), (18, 4000.0, 0)]
    annotations = [dict(category_id=c, area=a, iscrowd=crowd) for c, a, crowd in boxes]
    counts = count_boxes(annotations, {18: "dog", 17: "cat", 19: "bird"})
    # An area of exactly 32^2 is small and medium, as in COCO's evaluation.
    assert counts["areas"] == {"all": 3, "small": 2, "medium": 2, "large": 0}
    assert counts["classes"] == {"dog": 1, "cat": 2, "bird": 0}


def test_table_of_few_classes():
    numbers = numbers_of(["cat", "dog"], [0.25, -1]) | {"APl": math.nan, "ARl": math.nan}
    areas = {"all": 12, "small": 5, "medium": 7, "large": 0}
    counts = {"areas": areas, "classes": {"cat": 12, "dog": 0}}
    assert format_table(numbers, counts, "Evaluated 3 images").splitlines() == [
        "Evaluated 3 images",
        "AP 25.0  AP50 25.0  AP75 25.0  AP80 25.0  AP90 25.0  AR1 25.0  AR10 25.0  AR100 25.0",
        "size       boxes      AP   AR100",
        "all           12    25.0    25.0",
        "small          5    25.0    25.0",
        "medium         7    25.0    25.0",
        "large          0     n/a     n/a",
        "AP of each class (boxes)",
        "cat  25.0 (12)      dog  n/a (0 boxes)",
    ]


def test_names_cannot_control_a_terminal():
    names = ["\x1b[2Jred\r", "two\nlines", "\u202eright to left"]
    counts = {"areas": dict.fromkeys(("all", "small", "medium", "large"), 8)}
    counts["classes"] = dict.fromkeys(names, 8)
    table = format_table(numbers_of(names, [0.5] * 3), counts, "title")
    assert r"\x1b[2Jred\r" in table and "two lines" in table and r"\u202eright to left" in table
    assert all(character.isprintable() for character in table.replace("\n", ""))


def test_table_of_80_classes_fits_a_terminal():
    names = [f"class number {i}" for i in range(80)]
    counts = {"areas": dict.fromkeys(("all", "small", "medium", "large"), 80)}
    counts["classes"] = dict.fromkeys(names, 10000)
    lines = format_table(numbers_of(names, [0.5] * 80), counts, "title").splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 100
    assert all(any(name in line for line in lines) for name in names)
