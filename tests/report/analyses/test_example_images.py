import shutil
from pathlib import Path

import numpy as np
from synthetic_comparison import write_comparison

from det_losses.report.analyses import example_images
from det_losses.report.analyses.context import Context
from det_losses.report.study import Study


def test_chosen_are_the_largest_gains_then_the_largest_losses():
    gains = np.array([0.1, 0.5, np.nan, -0.2, 0.0, 0.3, -0.9, 0.9])
    boxes = np.array([3, 3, 0, 3, 3, 3, 3, 99])

    assert example_images.chosen_images(gains, boxes, per_variant=2) == [1, 5, 6, 3]
    assert example_images.chosen_images(gains, boxes, per_variant=4) == [1, 5, 0, 6, 3]
    assert example_images.chosen_images(np.zeros(8), boxes) == []


def test_the_two_most_different_are_shown_where_they_differ(planted):
    section = example_images.image_section(planted)
    (figure,) = section.figures
    study = planted.study
    verdict = study.verdict()
    means = {summary.label: summary.mean for summary in verdict.summaries}
    best, worst = max(means, key=means.get), min(means, key=means.get)

    assert (best, worst) == ("EIoULoss", "L1Loss")  # as planted
    assert section.text.startswith("EIoULoss and L1Loss differ most in AP")
    gains = np.mean([run.image_scores for run in planted.detection_stats[best]], axis=0) - np.mean(
        [run.image_scores for run in planted.detection_stats[worst]], axis=0
    )
    names = [image["file_name"] for image in study.coco["images"]]
    assert figure.svg.count("data:image/jpeg") == 4 + min(4, int((gains < 0).sum()))
    assert figure.svg.index(names[int(np.nanargmax(gains))]) > 0
    assert "mean of 3 seeds; drawn is seed" in figure.svg
    assert "L1Loss: 0 of" in figure.svg and "found only by EIoULoss" in figure.svg


def test_right_boxes_are_those_at_iou_of_a_half(make_truth, rows):
    truth, _ = make_truth({1: [(3, [0, 0, 10, 20], 0), (3, [50, 0, 20, 10], 0)], 2: []})
    found = rows(
        (1, [0, 0, 10, 11], 0.9, 3),  # IoU 0.55
        (1, [50, 0, 20, 4], 0.8, 3),  # IoU 0.4
        (1, [50, 0, 20, 10], 0.7, 3),  # a perfect fit, but the third of two
    )

    drawn = example_images.judged(truth, found)

    assert [(box.box[3], box.truth, round(box.iou, 3)) for box in drawn] == [
        (11, 0, 0.55),
        (4, None, 0.4),  # the highest IoU with a cat
    ]
    text = example_images.found_text("A", drawn, objects=2)
    assert text == "A: 1 of 2 found at IoU .5 (cat .90 IoU .55), 1 false (cat .80 IoU .40)"


def test_what_differs_in_words(make_truth, rows):
    cats = [(3, [0, 0, 10, 20], 0), (7, [50, 0, 20, 10], 0), (3, [100, 0, 20, 20], 0)]
    truth, _ = make_truth({1: cats})
    same = (1, [100, 0, 20, 20], 0.5, 3)
    one = rows((1, [0, 0, 10, 20], 0.9, 3), (1, [50, 0, 20, 8], 0.8, 7), same)
    two = rows((1, [0, 0, 10, 12], 0.9, 3), (1, [150, 0, 20, 10], 0.8, 7), same)
    boxes = {"A": example_images.judged(truth, one), "B": example_images.judged(truth, two)}

    assert example_images.difference_text(truth, boxes) == (
        "dog found only by A (IoU .80); cat with IoU 1.00 in A and .60 in B; no false in A, 1 in B"
    )
    twice = {"A": boxes["A"], "B": boxes["A"]}
    assert "no object differs" in example_images.difference_text(truth, twice)


def test_images_that_are_gone_are_named(tmp_path):
    root = write_comparison(tmp_path / "study", images=8, seeds=(0,), noise={"A": 0.05, "B": 0.2})
    shutil.rmtree(tmp_path / "images")

    section = example_images.image_section(Context(Study.load([root])))

    assert section.figures == ()
    assert "images could not be read" in section.text and "no such image file" in section.text


def test_one_broken_image_does_not_hide_the_others(tmp_path):
    root = write_comparison(tmp_path / "study", images=8, seeds=(0,), noise={"A": 0.05, "B": 0.2})
    whole = example_images.image_section(Context(Study.load([root]))).figures[0].svg
    name = next(f"{n:04d}.png" for n in range(8) if f"{n:04d}.png" in whole)
    Path(tmp_path, "images", name).write_text("no image")

    section = example_images.image_section(Context(Study.load([root])))

    assert "1 of " in section.text and name in section.text
    assert section.figures[0].svg.count("data:image") == whole.count("data:image") - 1


def test_an_unknown_image_folder_is_stated(make_context):
    context = make_context(
        images=6, seeds=(0,), noise={"A": 0.05, "B": 0.2}, meta={"image_dir": None}
    )

    section = example_images.image_section(context)

    assert section.figures == () and "The image folder is unknown" in section.text


def test_equal_variants_have_samples(tmp_path):
    root = write_comparison(tmp_path / "study", images=6, seeds=(0,), noise={"A": 0.05, "B": 0.05})
    shutil.copy(*(root / f"runs/{label}/seed_0/detections.json" for label in "AB"))

    section = example_images.image_section(Context(Study.load([root])))

    assert section.title == "Sample predictions"
    assert "A and B have the same score on every image" in section.text
    assert section.figures[0].svg.count("data:image/jpeg") == 5  # one of six has no object
