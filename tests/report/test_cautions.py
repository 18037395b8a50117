import json
from collections import Counter

import pytest
from verdicts import verdict_of

from det_losses.report import answer, cautions
from det_losses.report.cautions import limits
from det_losses.report.study import Study
from det_losses.statistics import Caution, CautionKind

TWO = {"base": 0.1, "new": 0.05}
MEANS = {"L1Loss": 0.35, "EIoULoss": 0.37}


@pytest.mark.parametrize(
    ("caution", "sentence"),
    [
        (Caution(CautionKind.ONE_SEED, 1), "With one seed, the intervals are for other images"),
        (Caution(CautionKind.TWO_SEEDS, 2), "With two seeds, the variance between trainings is"),
        (
            Caution(CautionKind.UNEQUAL_SEEDS, 2, ("A", "B")),
            "Not all variants have the same seeds (2 runs missing of A and B).",
        ),
        (
            Caution(CautionKind.OUTLYING_RUN, -0.082, ("A",), 2),
            "A seed 2 is 8.2 points below the other seeds of that variant. It may have diverged",
        ),
        (
            Caution(CautionKind.UNEQUAL_VARIANCE, 7.4, ("A",)),
            "A varies more between seeds than the others (variance ratio 7).",
        ),
        (Caution(CautionKind.IDENTICAL_RUNS, 3, ("A",)), "All 3 seeds of A have the same AP."),
        (
            Caution(CautionKind.IDENTICAL_RUNS, 3, ("A", "B")),
            "A and B have the same AP in each common seed.",
        ),
        (
            Caution(CautionKind.IDENTICAL_RUNS, 1, ("A", "B")),
            "A and B have the same AP in their common seed.",
        ),
        (Caution(CautionKind.FEW_IMAGES, 40), "Only 40 images were evaluated."),
        (Caution(CautionKind.RARE_CLASS, 6), "Only 6 evaluated images have objects of this class."),
        (
            Caution(CautionKind.UNLIKE_BASELINE, 5.0, ("L1Loss",)),
            "The other variants are more similar to each other than to L1Loss",
        ),
    ],
)
def test_each_caution_of_the_statistics_has_its_sentence(caution, sentence):
    (found,) = limits(verdict_of(MEANS, {}, cautions=[caution]))
    assert found.startswith(sentence)
    assert found.endswith(".")


def test_every_kind_of_caution_has_a_sentence():
    assert set(cautions._SENTENCES) == set(CautionKind)
    assert limits(verdict_of(MEANS, {})) == []


def test_a_variant_without_a_score_is_named():
    means = MEANS | {"IoULoss": None}
    assert limits(verdict_of(means, {})) == ["AP is undefined for IoULoss."]
    assert limits(verdict_of(dict.fromkeys(MEANS), {})) == []


def test_a_baseline_below_ap_10(planted, monkeypatch):
    aps = {label: float(own.full.mean()) for label, own in planted.scores("AP").items()}
    base, best = aps[planted.baseline], max(aps.values())
    for threshold, cautioned in ((base, False), (best, True), (best + 1e-9, False)):
        monkeypatch.setattr(answer, "TOO_LOW", threshold)
        monkeypatch.setattr(cautions, "TOO_LOW", threshold)
        found = cautions.weak_baseline(planted)
        assert bool(found) == cautioned
        assert not found or "choose another one with --baseline" in found


def test_wrong_boxes_are_a_caution_or_else_the_reason_of_a_low_ap(planted, monkeypatch):
    wrong = "train.json: WRONG BOXES? 236 of 315 boxes"
    notes = {"train": [wrong, "2 boxes are crowds"], "anchors": ["9 of 10 training boxes"]}
    monkeypatch.setitem(planted.meta, "data_notes", notes)
    assert cautions.cautions(planted)[0] == wrong
    monkeypatch.setattr(answer, "TOO_LOW", 1.0)
    monkeypatch.setattr(cautions, "TOO_LOW", 1.0)
    assert f"The boxes look wrong: {wrong}." in answer.headline(planted)
    found = cautions.cautions(planted)
    assert wrong not in found
    assert "The anchors do not fit: 9 of 10 training boxes." in found


def test_classes_in_few_images_are_named(make_comparison):
    """Of 12 images with 1 to 4 boxes of 3 classes, some class is in fewer than 10."""
    root = make_comparison(noise=TWO, images=12)
    truth = json.loads((root / "ground_truth.json").read_text())
    images = {
        category["name"]: len(
            {
                box["image_id"]
                for box in truth["annotations"]
                if box["category_id"] == category["id"] and not box["iscrowd"]
            }
        )
        for category in truth["categories"]
    }
    study = Study.load([root])
    assert {name: study.class_images(name) for name in images} == images
    (found,) = [each for each in cautions.cautions(study) if "Fewer than 10 evaluated" in each]
    assert all((name in found) == (count < 10) for name, count in images.items())
    rare = min(images, key=images.get)
    alone = cautions.cautions(Study.load([root], metric=f"AP/{rare}"))
    assert any(f"Only {images[rare]} evaluated images have" in each for each in alone)


def test_without_a_finished_baseline(make_comparison):
    root = make_comparison(seeds=(0,), noise=TWO, unfinished={("base", 0): "failed"})
    assert cautions.cautions(Study.load([root]))[0] == (
        "Only 1 of 2 runs is done (1 failed). The report covers only these."
    )


def test_cautions_name_the_runs(make_comparison):
    root = make_comparison(noise=TWO, meta={"notes": ["The budget was\n\r used up."]})
    (root / "runs/new/seed_1/detections.json").unlink()
    (root / "runs/new/seed_2/history.jsonl").unlink()
    results = json.loads((root / "results.json").read_text())
    results["runs"][0]["metrics"]["AP"] = 0.5  # base seed 0: not the AP of its detections
    results["runs"][0]["proof"]["loss_bbox"]["gradient"] = False
    (root / "results.json").write_text(json.dumps(results))
    study = Study.load([root])
    found = cautions.cautions(study)
    assert (
        "No finite, nonzero gradient of the loss was observed during training in "
        "base seed 0 (loss_bbox). Check that the training data has boxes, and that their size fits "
        "the anchors or locations of the detector." in found
    )
    again = "The command of the comparison evaluates such a run again, from its last checkpoint."
    missing = "Not in the statistics, because their detections are missing: new seed 1."
    assert f"{missing} {again}" in found
    assert (
        "No training curves, because history.jsonl is missing or cannot be read: new seed 2."
        in found
    )
    actual = 100 * study.full(study.runs_of("base")[0])["AP"]
    assert (
        "The statistics use the detections, whose AP differs from the recorded AP: "
        f"base seed 0 ({actual:.2f}, recorded 50.00)." in found
    )
    assert found[-1] == "The budget was used up."


def test_more_objects_than_evaluated_detections_are_told(make_comparison):
    """The most objects of a class on an image are counted with a loop."""
    study = Study.load([make_comparison(noise=TWO)])
    counts = Counter(
        (box["image_id"], box["category_id"])
        for box in study.coco["annotations"]
        if not box["iscrowd"]
    )
    most = max(counts.values())
    study.max_dets = most
    assert not any("objects of a class" in each for each in cautions.cautions(study))
    study.max_dets = most - 1
    images = {image for (image, _), count in counts.items() if count == most}
    (found,) = [each for each in cautions.cautions(study) if "objects of a class" in each]
    total = len(study.coco["images"])
    start = f"{len(images)} of {total} evaluated images have more than {most - 1} objects of a "
    assert found.startswith(start + f"class, up to {most}")
    assert f"val_evaluator.max_dets={most} evaluates more" in found
    study.origins = ()  # result files of other frameworks
    assert f"--max-dets {most} evaluates more" in str(cautions.cautions(study))


def test_a_variant_with_an_undefined_metric_is_named(make_comparison):
    unfinished = {("a", 0): "pending", ("b", 1): "pending"}
    noise = {"base": 0.1, "a": 0.05, "b": 0.05}
    study = Study.load([make_comparison(noise=noise, seeds=(0, 1), unfinished=unfinished)])
    assert any("Not in the statistics: b (no finished" in each for each in cautions.cautions(study))


def test_merged_machines_are_named(make_comparison):
    roots = [
        make_comparison(name, noise=TWO, seeds=(seed,), meta={"hardware": {"cpu": name}})
        for seed, name in enumerate("ab")
    ]
    (sentence,) = (s for s in cautions.cautions(Study.load(roots)) if s.startswith("Merged from"))
    assert sentence == (
        f"Merged from {roots[0]} and {roots[1]}. "
        "The machines differ, so times and memory are not comparable."
    )


def test_cautions_with_folds(make_comparison):
    """Images are not resampled, so few of them are no problem; a class in one fold is."""
    root = make_comparison(folds=2, seeds=(0, 1), noise={"a": 0.1, "b": 0.1}, images=12)
    truth = json.loads((root / "ground_truth.json").read_text())
    fold_of = {image["id"]: image["fold"] for image in truth["images"]}
    for box in truth["annotations"]:
        if box["category_id"] == 18 and fold_of[box["image_id"]] == 0:
            box["category_id"] = 7
    (root / "ground_truth.json").write_text(json.dumps(truth))
    found = " ".join(cautions.cautions(Study.load([root])))
    assert "All objects of bird are in one fold." in found
    assert "With two folds, the variance between trainings is poorly known" in found
    assert "Fewer than" not in found and "were evaluated" not in found
