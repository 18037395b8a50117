import json
import shutil

import pytest

from det_losses.report.study import Study

TWO = {"base": 0.1, "new": 0.05}


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def refused(match, *dirs):
    with pytest.raises(ValueError, match=match):
        Study.load(dirs)


def test_variants_and_seeds_of_two_machines_become_one_comparison(make_comparison):
    first = make_comparison("a", noise=TWO, seeds=(0, 1), meta={"notes": ["stopped", "same"]})
    second = make_comparison(
        "b", noise={"base": 0.1, "other": 0.16}, seeds=(2, 1), meta={"notes": ["same"]}
    )
    study = Study.load([first, second])
    assert study.labels == ["base", "new", "other"]
    seeds = {label: [run["seed"] for run in study.done(label)] for label in study.labels}
    assert seeds == {"base": [0, 1, 2], "new": [0, 1], "other": [1, 2]}
    assert study.meta["seeds"] == [0, 1, 2]
    assert study.meta["notes"] == ["stopped", "same"]
    assert [len(d) for d in (study.verdict().pairs, study.origins)] == [3, 2]
    assert study.verdict().difference("new", "other").seeds == 1
    # base seed 1 was done in both, with equal results: the first one is used.
    assert study.runs_of("base")[1]["directory"] == str(first / "runs/base/seed_1")


def test_a_run_that_is_done_on_another_machine_counts_as_done(make_comparison):
    first = make_comparison("a", noise=TWO, unfinished={("new", 1): "failed"})
    second = make_comparison("b", noise=TWO, unfinished={("new", 2): "pending"})
    study = Study.load([first, second])
    assert [run["status"] for run in study.runs_of("new")] == ["done"] * 3
    assert study.runs_of("new")[1]["directory"].startswith(str(second))


def test_the_copy_of_a_run_with_detections_is_used(make_comparison):
    first, second = (make_comparison(name, noise=TWO, seeds=(0,)) for name in "ab")
    (first / "runs/new/seed_0/detections.json").unlink()
    study = Study.load([first, second])
    assert study.runs_of("new")[0]["directory"] == str(second / "runs/new/seed_0")
    assert study.runs_of("base")[0]["directory"] == str(first / "runs/base/seed_0")


def test_images_are_read_from_the_first_folder_that_exists(make_comparison, tmp_path):
    first = make_comparison("a", noise=TWO, seeds=(0,), meta={"image_dir": "/of/another/machine"})
    second = make_comparison("b", noise=TWO, seeds=(1,), meta={"image_dir": str(tmp_path)})
    assert Study.load([first, second]).meta["image_dir"] == str(tmp_path)


@pytest.mark.parametrize("runs", [None, {}, [1]])
def test_runs_must_be_a_list_of_rows(make_comparison, runs):
    root = make_comparison("a", noise=TWO, seeds=(0,))
    edit(root / "results.json", lambda results: results.update(runs=runs))
    refused("results.json is not from a comparison", root)


def test_a_run_with_two_results_is_refused(make_comparison):
    first, second = (make_comparison(name, noise=TWO, seeds=(0,)) for name in "ab")
    edit(second / "results.json", lambda r: r["runs"][1]["metrics"].update(AP=0.5))
    refused(rf"new seed 0 has different results in {first} and {second}", first, second)


def test_different_configs_are_refused_with_their_differences(make_comparison):
    first = make_comparison("a", noise=TWO, seeds=(0,))
    second = make_comparison(
        "b", noise=TWO, seeds=(1,), meta={"hash": "cd" * 32, "detector": "FasterRCNN"}
    )
    refused("detector: 'RetinaNet' -> 'FasterRCNN'", first, second)
    edit(second / "results.json", lambda r: r["meta"].update(detector="RetinaNet"))
    refused("their hashes differ", first, second)
    for folder, epochs in ((first, 12), (second, 24)):
        (folder / "plan.json").write_text(
            json.dumps({"config": {"train_cfg": {"max_epochs": epochs}}})
        )
    refused(r"train_cfg\.max_epochs: 12 -> 24", first, second)


def test_a_label_with_two_configs_is_refused(make_comparison):
    first, second = (make_comparison(name, noise=TWO, seeds=(n,)) for n, name in enumerate("ab"))
    change = {"type": "new", "loss_weight": 2.0}
    edit(
        second / "results.json",
        lambda r: r["meta"]["variants"]["new"]["changes"].update({"model.loss_bbox": change}),
    )
    refused(r"new differs between .*loss_weight: 1.0 -> 2.0", first, second)


def test_different_ground_truths_are_refused(make_comparison):
    first, second = (make_comparison(name, noise=TWO, seeds=(n,)) for n, name in enumerate("ab"))
    edit(second / "ground_truth.json", lambda truth: truth["annotations"].pop())
    refused("b/ground_truth.json differs from .*a/ground_truth.json in annotations", first, second)


def test_files_that_are_not_of_a_comparison_are_refused(make_comparison, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"results\.json: no such file"):
        Study.load([tmp_path / "absent"])
    root = make_comparison(seeds=(0,), noise=TWO)
    results = root / "results.json"
    for text, message in (
        ("{", r"results\.json is not valid JSON"),
        ("[]", "is not from a comparison"),
        ('{"meta": {"losses": {}}, "runs": []}', "is not from a comparison"),
        (
            '{"meta": {"variants": {"a": {}}, "baseline": "b"}, "runs": []}',
            "baseline b is not one of",
        ),
        (
            '{"meta": {"variants": {"a": {}}, "baseline": "a"}, "runs": [{"seed": 0}]}',
            "run 0 has no variant, status",
        ),
    ):
        results.write_text(text)
        refused(message, root)


def test_a_moved_directory_can_be_read(make_comparison, tmp_path):
    root = make_comparison(seeds=(0,), noise=TWO)
    moved = tmp_path / "elsewhere" / "c"
    shutil.move(root, moved)
    assert Study.load([moved]).verdict().against_baseline[0].value > 0
