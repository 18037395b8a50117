import json
import shutil

import numpy as np
import pytest

from det_losses.evaluation.metrics import METRICS
from det_losses.report import runs as runs_module
from det_losses.report import write_report
from det_losses.report.analyses import context as context_module
from det_losses.report.analyses import detection_stats as stats_module
from det_losses.report.analyses.context import Context
from det_losses.report.cautions import cautions
from det_losses.report.methods import methods
from det_losses.report.runs import Runs


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_metrics_are_those_that_hotcoco_recorded(make_comparison):
    study = Runs.load([make_comparison(seeds=(0,))])
    for label in study.labels:
        (run,) = study.done(label)
        computed = study.full(run)
        recorded = [name for name in METRICS if name in run["metrics"]]
        assert len(recorded) == 8
        for name in [*recorded, "AP/cat", "AP/dog", "AP/bird"]:
            assert computed[name] == pytest.approx(run["metrics"][name], abs=1e-12)
        assert study.scores("AP")[label].full == [computed["AP"]]


def test_a_planted_difference_is_detected_and_noise_is_not(make_comparison):
    verdict = Runs.load([make_comparison()]).verdict()
    assert [s.label for s in verdict.summaries][::3] == ["EIoULoss", "L1Loss"]
    found = {d.first: verdict.differs(d) for d in verdict.against_baseline}
    assert found == {"EIoULoss": True, "GIoULoss": False, "L1Loss": True}


def test_several_evaluations_are_averaged_on_each_draw_too(make_comparison):
    root = make_comparison(evaluations=2, seeds=(0,), noise={"a": 0.1, "b": 0.05})
    together = Runs.load([root]).scores("AP75")
    folder = root / "runs" / "b" / "seed_0"
    files = [folder / "detections.json", folder / "detections_1.json"]
    truth = root / "ground_truth.json"
    apart = Runs.from_detections(truth, {"first": files[:1], "last": files[1:]}, resamples=100)
    scores = apart.scores("AP75")
    assert together["b"].full == (scores["first"].full + scores["last"].full) / 2
    mean = (scores["first"].resampled + scores["last"].resampled) / 2
    np.testing.assert_allclose(together["b"].resampled, mean, rtol=1e-12)
    # One run's detections and matches are those of its last evaluation.
    study = Runs.load([root])
    expected = apart.detections(apart.done("last")[0])
    np.testing.assert_array_equal(study.detections(study.done("b")[0]), expected)


def test_all_runs_use_the_same_resamples(make_comparison):
    root = make_comparison(seeds=(0, 1), noise={"a": 0.1, "b": 0.1})
    for folder in ("a/seed_1", "b/seed_0", "b/seed_1"):
        shutil.copy(root / "runs/a/seed_0/detections.json", root / "runs" / folder)
    scores = Runs.load([root]).scores("AP")
    assert np.ptp([s.resampled for s in scores.values()], axis=(0, 2)).max() == 0
    assert len(np.unique(scores["a"].resampled[:, 0])) > 50


def forbid_matching(monkeypatch):
    def match(*_):
        raise AssertionError("matched again")

    monkeypatch.setattr(runs_module, "match", match)


def test_resampled_metrics_are_cached_beside_the_run(make_comparison, monkeypatch):
    root = make_comparison(seeds=(0,), noise={"a": 0.1, "b": 0.05})
    first = Runs.load([root]).scores("AP50")
    with monkeypatch.context() as patched:
        forbid_matching(patched)
        again = Runs.load([root]).scores("AP50")
        np.testing.assert_array_equal(again["b"].resampled, first["b"].resampled)
        assert again["b"].full == first["b"].full
    assert not list(root.glob("runs/*/*/*.part"))


@pytest.mark.parametrize("what", ["detections", "truth", "resamples", "broken"])
def test_a_cache_of_other_data_is_not_used(make_comparison, monkeypatch, what):
    root = make_comparison(seeds=(0,), noise={"a": 0.1, "b": 0.05})
    before = Runs.load([root]).scores("AP")
    resamples = None
    if what == "detections":
        edit(root / "runs/b/seed_0/detections.json", lambda found: found.pop(0))
    elif what == "truth":
        edit(root / "ground_truth.json", lambda truth: truth["annotations"].pop())
    elif what == "resamples":
        resamples = 120
    else:
        cache = root / "runs/b/seed_0/resampled.npz"
        cache.write_bytes(cache.read_bytes()[:1000])
    after = Runs.load([root], resamples=resamples).scores("AP")
    assert after["b"].resampled.shape == (resamples or 100, 1)
    same = np.array_equal(after["b"].resampled, before["b"].resampled)
    assert same == (what == "broken")
    with monkeypatch.context() as patched:  # the new numbers are cached
        forbid_matching(patched)
        Runs.load([root], resamples=resamples).scores("AP")


def test_statistics_of_detections_are_cached_beside_the_run(make_comparison, monkeypatch):
    root = make_comparison(seeds=(0, 1), noise={"a": 0.1, "b": 0.05})
    first = Context(Runs.load([root])).detection_stats
    with monkeypatch.context() as patched:
        patched.setattr(context_module, "detection_stats", None)
        again = Context(Runs.load([root])).detection_stats
    for label, runs in first.items():
        assert [run.seed for run in again[label]] == [0, 1]
        for one, other in zip(runs, again[label], strict=True):
            np.testing.assert_equal(vars(other), vars(one))  # NaN equals NaN
    # Not those of other detections, nor of another version.
    edit(root / "runs/b/seed_0/detections.json", lambda found: found.clear())
    assert not len(Context(Runs.load([root])).detection_stats["b"][0].ious)
    monkeypatch.setattr(stats_module, "_MADE_BY", "later")
    monkeypatch.setattr(context_module, "detection_stats", lambda *_: first["a"][0])
    assert Context(Runs.load([root])).detection_stats["b"][1].ious is first["a"][0].ious


def test_only_finished_runs_count(make_comparison):
    unfinished = {("EIoULoss", 0): "failed", ("EIoULoss", 2): "pending", ("L1Loss", 0): "failed"}
    unfinished |= {("GIoULoss", seed): "interrupted" for seed in range(3)}
    study = Runs.load([make_comparison(unfinished=unfinished)])
    assert study.compared == ["SmoothL1Loss", "EIoULoss", "L1Loss"]
    seeds = {label: scores.seeds for label, scores in study.scores("AP").items()}
    assert seeds == {"SmoothL1Loss": (0, 1, 2), "EIoULoss": (1,), "L1Loss": (1, 2)}
    assert [run["status"] for run in study.runs_of("EIoULoss")] == ["failed", "done", "pending"]


def test_a_variant_without_a_common_seed_is_left_out(make_comparison):
    unfinished = {("a", 0): "pending", ("b", 1): "pending", ("b", 2): "pending"}
    root = make_comparison(noise={"base": 0.1, "a": 0.05, "b": 0.05}, unfinished=unfinished)
    study = Runs.load([root])
    assert study.compared == ["base", "a"]
    assert len(study.verdict().pairs) == 1


def test_without_a_finished_baseline_there_is_no_verdict(make_comparison):
    root = make_comparison(seeds=(0,), unfinished={("SmoothL1Loss", 0): "pending"})
    study = Runs.load([root])
    assert not study.comparable
    assert study.compared == ["GIoULoss", "EIoULoss", "L1Loss"]  # with each other
    with pytest.raises(ValueError, match="requires a finished run of the baseline SmoothL1Loss"):
        study.verdict()
    assert Runs.load([root], baseline="L1Loss").verdict().baseline == "L1Loss"


def test_runs_without_detections_or_history(make_comparison):
    root = make_comparison(noise={"a": 0.1, "b": 0.05})
    (root / "runs/b/seed_1/detections.json").unlink()
    (root / "runs/b/seed_2/history.jsonl").unlink()
    study = Runs.load([root])
    assert [run["seed"] for run in study.done("b")] == [0, 2]
    assert study.history(study.runs_of("b")[2]) == []
    assert study.history(study.runs_of("b")[0])[0]["kind"] == "train"


@pytest.mark.parametrize("content", ["", "[{", "{}", '[{"image_id": 1}]', "[1]"])
def test_damaged_detections_of_a_run_leave_out_only_this_run(make_comparison, content):
    root = make_comparison(noise={"a": 0.1, "b": 0.05})
    file = root / "runs/b/seed_1/detections.json"
    file.write_text(content)
    study = Runs.load([root])
    assert [run["seed"] for run in study.done("b")] == [0, 2]
    assert study.verdict().summaries[0].label == "b"
    (found,) = [text for text in cautions(study) if "are damaged" in text]
    assert str(file) in found
    write_report(study, root / "out")
    with pytest.raises(ValueError, match=r"seed_1/detections\.json"):  # the user names this file
        Runs.from_detections(root / "ground_truth.json", {"b": [file]}).scores("AP")


def test_names_that_do_not_exist(make_comparison):
    root = make_comparison(seeds=(0,), noise={"a": 0.1, "b": 0.05})
    with pytest.raises(ValueError, match="baseline 'c' is not one of a and b"):
        Runs.load([root], baseline="c")
    with pytest.raises(ValueError, match="metric 'AP99' is not one of AP, AP50"):
        Runs.load([root], metric="AP99")
    with pytest.raises(ValueError, match="metric 'AP/cow' is not one of"):
        Runs.load([root]).scores("AP/cow")


def test_detections_of_other_frameworks_are_paired_by_their_order(make_comparison):
    root = make_comparison(noise={"a": 0.1, "b": 0.05})
    files = {
        label: [root / f"runs/{label}/seed_{s}/detections.json" for s in (0, 1, 2)]
        for label in "ab"
    }
    study = Runs.from_detections(root / "ground_truth.json", files, resamples=100)
    assert study.verdict().metric == "AP"
    assert not list(root.rglob("*.npz"))  # nothing is written into a folder of another framework
    ours = Runs.load([root]).verdict()
    assert study.verdict().against_baseline == ours.against_baseline
    with pytest.raises(ValueError, match="a has 3, b has 2"):
        Runs.from_detections(root / "ground_truth.json", {**files, "b": files["b"][:2]})


def test_files_that_cannot_be_read_are_named(make_comparison, tmp_path):
    root = make_comparison(seeds=(0,), noise={"a": 0.1})
    truth, found = root / "ground_truth.json", root / "runs/a/seed_0/detections.json"
    with pytest.raises(FileNotFoundError, match=r"nope\.json: no such file"):
        Runs.from_detections(truth, {"a": [tmp_path / "nope.json"]})
    with pytest.raises(ValueError, match=r"detections\.json: "):
        Runs.from_detections(found, {"a": [found]})
    edit(found, lambda entries: entries[0].update(image_id=999999))
    with pytest.raises(ValueError, match=r"detections\.json: .*999999"):
        Runs.from_detections(truth, {"a": [found]}).scores("AP")


@pytest.fixture
def dense(tmp_path):
    """A comparison on two images with 169 objects each, all of which both runs find."""
    places = [(9 * x, 9 * y) for x in range(13) for y in range(13)]
    image = {"file_name": "absent.png", "width": 128, "height": 128}
    boxes = [
        {"image_id": number, "category_id": 1, "bbox": [x, y, 7, 7], "area": 49, "iscrowd": 0}
        for number in (1, 2)
        for x, y in places
    ]
    truth = {
        "images": [{**image, "id": number} for number in (1, 2)],
        "annotations": [{**box, "id": number} for number, box in enumerate(boxes, 1)],
        "categories": [{"id": 1, "name": "dot"}],
    }
    found = [{**box, "score": 0.9} for box in boxes]
    meta = {"variants": {"a": {}, "b": {}}, "baseline": "a", "resamples": 100}
    runs = [{"variant": label, "seed": 0, "status": "done", "work_dir": label} for label in "ab"]
    for name, content in {
        "ground_truth.json": truth,
        "results.json": {"meta": meta, "runs": runs},
        "a/detections.json": found,
        "b/detections.json": found,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


# 100 of 169 objects reach the recalls 0, .01, ... .59, which are 60 of COCO's 101.
@pytest.mark.parametrize(("max_dets", "expected"), [(None, 60 / 101), (500, 1.0)])
def test_the_statistics_use_as_many_detections_as_the_metric_of_the_runs(dense, max_dets, expected):
    Runs.load([dense]).scores("AP")  # and its numbers are cached
    if max_dets:
        edit(dense / "results.json", lambda content: content["meta"].update(max_dets=max_dets))
    study = Runs.load([dense])
    assert study.scores("AP")["a"].full == pytest.approx([expected])
    assert f"at most {max_dets or 100} detections" in methods(study).text
    (stats,) = Context(study).detection_stats["a"]
    # All objects of an image are its detections of highest score, as many as are evaluated.
    assert stats.image_scores == pytest.approx([1.0 if max_dets else 100 / 169] * 2)


def test_an_earlier_version_stored_the_number_of_detections_in_the_plan_only(dense):
    evaluator = {"type": "CocoMetric", "max_dets": 500}
    (dense / "plan.json").write_text(json.dumps({"config": {"val_evaluator": evaluator}}))
    assert Runs.load([dense]).scores("AP")["a"].full == [1.0]


def test_other_frameworks_may_evaluate_more_detections(dense):
    files = {"a": [dense / "a" / "detections.json"]}
    options = {"resamples": 100, "max_dets": 500}
    study = Runs.from_detections(dense / "ground_truth.json", files, **options)
    assert study.scores("AP")["a"].full == [1.0]


def test_with_folds_a_run_is_evaluated_on_the_images_of_its_fold(make_comparison):
    root = make_comparison(folds=3, seeds=(0, 1, 2, 3), noise={"a": 0.1, "b": 0.1})
    study = Runs.load([root])
    for run in study.done("a"):
        assert study.truth_of(run["seed"]).image_ids.tolist() == [
            image["id"] for image in study.coco["images"] if image["fold"] == run["seed"] % 3
        ]
        # recorded: by hotcoco, on that part of the ground truth
        assert study.full(run)["AP"] == pytest.approx(run["metrics"]["AP"], abs=1e-12)
    assert study.evaluated_folds == [0, 1, 2]
    verdict = study.verdict()
    (found,) = verdict.against_baseline
    assert (found.seeds, found.image_se, verdict.folds) == (3, 0, 3)
    assert [s.seeds for s in verdict.summaries] == [4, 4]
    # the means of the two runs on fold 0 count once
    scores = study.scores("AP")
    first = {label: scores[label].full[[0, 3]].mean() for label in "ab"}
    rest = {label: scores[label].full[1:3] for label in "ab"}
    expected = np.mean([first["b"] - first["a"], *(rest["b"] - rest["a"])])
    assert found.value == pytest.approx(expected)
    # and from the caches
    again = Runs.load([root])
    assert again.verdict().against_baseline[0] == found


def test_folds_without_the_fold_of_each_image_are_refused(make_comparison):
    root = make_comparison(folds=2, seeds=(0, 1), noise={"a": 0.1})
    edit(root / "ground_truth.json", lambda truth: truth["images"][3].pop("fold"))
    with pytest.raises(ValueError, match=r"ground_truth\.json: an image has no `fold`"):
        Runs.load([root]).verdict()
