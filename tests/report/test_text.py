import json
import math

import numpy as np
import pytest

from det_losses.report import text
from det_losses.report.study import Study
from det_losses.report.text import answer, limits
from det_losses.statistics import Difference, Summary, Verdict, detectable_after_holm

LONG = ("EIoULoss(loss_weight=2)", "FocalEIoULoss(gamma=0.5, loss_weight=1.5)")
TWO = {"base": 0.1, "new": 0.05}


def verdict_of(
    means, *, metric="AP", half=0.009, seeds=3, images=500, se=0.004, df=1000.0, apart=0.01
):
    """A verdict in which two variants differ where their means are more than `apart` apart.

    The first is the baseline. A mean of None is a variant without a score.
    """
    seeds = seeds if isinstance(seeds, dict) else dict.fromkeys(means, seeds)
    baseline = next(iter(means))
    ranked = sorted(means, key=lambda label: -(means[label] or 0))

    def difference(first, second):
        if means[first] is None or means[second] is None:
            return Difference(first, second, *[math.nan] * 7, math.nan, math.nan, 3, math.nan)
        value = means[first] - means[second]
        p = 0.001 if abs(value) > apart else 0.2
        common = min(seeds[first], seeds[second])
        interval = (value - half, value + half)
        return Difference(first, second, value, se, df, *interval, p, p, 0.002, se, common, 0.01)

    return Verdict(
        metric=metric,
        baseline=baseline,
        images=images,
        level=0.95,
        summaries=tuple(
            Summary(k, math.nan if means[k] is None else means[k], 0.01, seeds[k]) for k in ranked
        ),
        against_baseline=tuple(difference(k, baseline) for k in ranked if k != baseline),
        pairs=tuple(difference(a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :]),
        letters={},
    )


def test_one_variant_is_better():
    means = {"SmoothL1Loss": 0.35, "EIoULoss": 0.363, "GIoULoss": 0.351, "DIoULoss": 0.349}
    assert answer(verdict_of(means)) == (
        "EIoULoss is better than SmoothL1Loss by 1.3 AP [0.4, 2.2]. "
        "No difference to SmoothL1Loss was detected for GIoULoss and DIoULoss."
    )


def test_a_single_pair_that_differs():
    means = {"L1Loss": 0.35, LONG[0]: 0.372}
    assert answer(verdict_of(means, metric="AP75")) == (
        "EIoULoss(loss_weight=2) is better than L1Loss by 2.2 AP75 [1.3, 3.1]."
    )


def test_better_variants_without_a_difference_between_them():
    means = {"SmoothL1Loss": 0.35, "CIoULoss": 0.37, "EIoULoss": 0.373, "GIoULoss": 0.372}
    assert answer(verdict_of(means)) == (
        "EIoULoss (2.3 AP [1.4, 3.2]), GIoULoss (2.2 AP [1.3, 3.1]) and CIoULoss (2.0 AP "
        "[1.1, 2.9]) are better than SmoothL1Loss. "
        "No difference to EIoULoss was detected for GIoULoss and CIoULoss."
    )


def test_better_variants_of_which_one_is_the_best():
    means = {"L1Loss": 0.35, "GIoULoss": 0.37, "EIoULoss": 0.39}
    assert answer(verdict_of(means)) == (
        "EIoULoss (4.0 AP [3.1, 4.9]) and GIoULoss (2.0 AP [1.1, 2.9]) are better than L1Loss. "
        "EIoULoss is also better than GIoULoss."
    )
    best = answer(verdict_of(means | {"DIoULoss": 0.371}))
    assert best.endswith(
        "are better than L1Loss. EIoULoss is also better than DIoULoss and GIoULoss."
    )


def test_better_variants_of_which_some_equal_the_first():
    means = {"L1Loss": 0.35, "GIoULoss": 0.37, "EIoULoss": 0.39, "CIoULoss": 0.389}
    assert answer(verdict_of(means)).endswith(
        "are better than L1Loss. No difference to EIoULoss was detected for CIoULoss."
    )


def test_better_and_worse_variants():
    means = {"L1Loss": 0.35, "EIoULoss": 0.37, "IoULoss": 0.351, "MSELoss": 0.30}
    assert answer(verdict_of(means)) == (
        "EIoULoss is better than L1Loss by 2.0 AP [1.1, 2.9]. "
        "No difference to L1Loss was detected for IoULoss. "
        "MSELoss is worse than L1Loss by 5.0 AP [4.1, 5.9]."
    )


def test_only_worse_variants():
    assert answer(verdict_of({"a.json": 0.35, "b.json": 0.33})) == (
        "b.json is worse than a.json by 2.0 AP [1.1, 2.9]."
    )
    means = {"L1Loss": 0.35, "MSELoss": 0.33, "HuberLoss": 0.32}
    assert answer(verdict_of(means)) == (
        "No variant was found to be better than L1Loss. "
        "HuberLoss (3.0 AP [2.1, 3.9]) and MSELoss (2.0 AP [1.1, 2.9]) are worse than L1Loss."
    )
    means |= {"IoULoss": 0.351, "HuberLoss": 0.349}
    assert answer(verdict_of(means)) == (
        "No variant was found to be better than L1Loss. "
        "No difference to L1Loss was detected for IoULoss and HuberLoss. "
        "MSELoss is worse than L1Loss by 2.0 AP [1.1, 2.9]."
    )


def test_many_variants_are_counted():
    means = {"SmoothL1Loss": 0.35, LONG[0]: 0.39, LONG[1]: 0.389}
    means |= {f"Better{i}Loss": 0.385 - i / 1000 for i in range(3)}
    means |= {f"Same{i}Loss": 0.35 + i / 1000 for i in range(5)}
    means |= {f"Worse{i}Loss": 0.31 + i / 1000 for i in range(5)}
    assert answer(verdict_of(means)) == (
        "EIoULoss(loss_weight=2) (4.0 AP [3.1, 4.9]), "
        "FocalEIoULoss(gamma=0.5, loss_weight=1.5) (3.9 AP [3.0, 4.8]), "
        "Better0Loss (3.5 AP [2.6, 4.4]) and 2 more are better than SmoothL1Loss. "
        "No difference to EIoULoss(loss_weight=2) was detected for 4 of them. "
        "No difference to SmoothL1Loss was detected for 5 other variants. "
        "Worse0Loss (4.0 AP [3.1, 4.9]), Worse1Loss (3.9 AP [3.0, 4.8]), "
        "Worse2Loss (3.8 AP [2.9, 4.7]) and 2 more are worse than SmoothL1Loss."
    )


def test_a_single_pair_without_a_difference():
    # With 1,000 degrees of freedom (t.975 + t.80) SE = (1.96 + 0.84) 0.4 points.
    assert answer(verdict_of({"a.json": 0.35, "b.json": 0.353})) == (
        "No difference between b.json and a.json was detected on this data: 0.3 AP [-0.6, 1.2]. "
        "A true difference of 1.1 AP would be detected with 80% power."
    )


def test_the_difference_of_a_pair_keeps_its_sign():
    assert "on this data: -0.3 AP [-1.2, 0.6]. A true" in answer(
        verdict_of({"a.json": 0.353, "b.json": 0.35})
    )


def test_nothing_differs_from_the_baseline():
    """The power is that of Holm's first step, of 3 tests, for the least precise difference."""
    means = {"SmoothL1Loss": 0.35, "EIoULoss": 0.351, "GIoULoss": 0.352, "DIoULoss": 0.349}
    verdict = verdict_of(means, se=0.004, df=4.2)
    detectable = 100 * detectable_after_holm(verdict.against_baseline[0], tests=3)
    assert answer(verdict) == (
        "No difference to SmoothL1Loss was detected on this data for any of the 3 other variants. "
        f"A true difference of {detectable:.1f} AP would be detected with 80% power."
    )


def test_no_difference_was_detectable():
    """With one degree of freedom the 80% are beyond 100 AP."""
    means = {"SmoothL1Loss": 0.35, "EIoULoss": 0.351, "GIoULoss": 0.352}
    verdict = verdict_of(means, se=0.04, df=1.0)
    assert detectable_after_holm(verdict.against_baseline[0], tests=2) > 1
    assert answer(verdict) == (
        "No difference to SmoothL1Loss was detected on this data for any of the 2 other variants. "
        "Even a very large true difference would probably not be detected."
    )


def test_a_difference_between_other_variants_is_reported():
    means = {"L1Loss": 0.35, "EIoULoss": 0.358, "IoULoss": 0.342}
    assert answer(verdict_of(means)).endswith(
        "80% power. However, EIoULoss is better than IoULoss by 1.6 AP [0.7, 2.5]."
    )


def test_identical_results():
    same = {"a.json": 0.35, "b.json": 0.35}
    assert answer(verdict_of(same, se=0.0, half=0.0)) == (
        "No difference between b.json and a.json was detected on this data: the AP is the same."
    )


def test_one_seed_gives_no_variance_between_trainings():
    means = {"L1Loss": 0.35, "EIoULoss": 0.37}
    sentence = "Each variant was trained with one seed, so the variance between trainings is"
    assert answer(verdict_of(means, seeds=1)) == (
        f"EIoULoss is better than L1Loss by 2.0 AP [1.1, 2.9]. {sentence} unknown."
    )
    some = verdict_of(means | {"IoULoss": 0.37}, seeds={"L1Loss": 3, "EIoULoss": 3, "IoULoss": 1})
    assert sentence not in answer(some)


def test_one_variant():
    assert answer(verdict_of({"L1Loss": 0.352})) == (
        "AP of L1Loss is 35.2. There is no other variant to compare it with."
    )
    assert answer(verdict_of({"L1Loss": None}, metric="APs")) == (
        "APs of L1Loss is undefined. There is no other variant to compare it with."
    )


def test_metric_of_a_class():
    means = {"L1Loss": 0.35, "EIoULoss": 0.37}
    assert answer(verdict_of(means, metric="AP/traffic light")) == (
        "EIoULoss is better than L1Loss by 2.0 AP of traffic light [1.1, 2.9]."
    )


def test_no_ground_truth():
    assert answer(verdict_of({"L1Loss": None, "EIoULoss": None}, metric="APl")) == (
        "APl is undefined on this data, so the variants cannot be compared."
    )
    means = {"L1Loss": 0.35, "EIoULoss": 0.37, "IoULoss": None}
    assert answer(verdict_of(means)) == (
        "EIoULoss is better than L1Loss by 2.0 AP [1.1, 2.9]. AP is undefined for IoULoss."
    )


@pytest.mark.parametrize(
    ("value", "half", "words"),
    [
        (0.0005, 0.0001, "by 0.05 AP [0.04, 0.06]"),
        (0.00007, 0.00005, "by 0.007 AP [0.002, 0.012]"),
        (0.0130, 0.0129, "by 1.30 AP [0.01, 2.59]"),
        (-0.0130, 0.0129, "by 1.30 AP [0.01, 2.59]"),
        (0.02, 0.0196, "by 2.00 AP [0.04, 3.96]"),
    ],
)
def test_a_bound_that_is_not_zero_is_not_shown_as_zero(value, half, words):
    verdict = verdict_of({"a": 0.35, "b": 0.35 + value}, half=half, apart=0)
    assert words in answer(verdict)


def test_there_is_no_negative_zero():
    verdict = verdict_of({"a": 0.35, "b": 0.3499}, half=0.0001)
    assert ": 0.0 AP [0.0, 0.0]." in answer(verdict)


def test_limits_of_few_seeds_and_images():
    means = {"L1Loss": 0.35, "EIoULoss": 0.37, "IoULoss": 0.36}
    assert limits(verdict_of(means)) == []
    (one,) = limits(verdict_of(means, seeds=1))
    assert one.startswith("With one seed, the intervals cover the sampling of images only")
    (two,) = limits(verdict_of(means, seeds=2))
    assert two.startswith("With two seeds, the variance between trainings")
    (few,) = limits(verdict_of(means, images=99))
    assert few.startswith("Only 99 images were evaluated")
    assert limits(verdict_of(means, images=100)) == []
    mixed = limits(verdict_of(means, seeds={"L1Loss": 3, "EIoULoss": 3, "IoULoss": 2}))
    assert [sentence.split()[0:2] for sentence in mixed] == [["With", "two"], ["Not", "all"]]
    mixed = limits(verdict_of(means, seeds={"L1Loss": 3, "EIoULoss": 3, "IoULoss": 1}))
    assert [sentence.split()[0:2] for sentence in mixed] == [["Some", "variants"], ["Not", "all"]]
    assert limits(verdict_of({"L1Loss": 0.35})) == []


def test_below_ap_10_there_is_no_ranking(planted, monkeypatch):
    aps = {label: float(own.full.mean()) for label, own in planted.scores("AP").items()}
    base, best = aps[planted.baseline], max(aps.values())
    monkeypatch.setattr(text, "TOO_LOW", base)
    assert text.headline(planted) == answer(planted.verdict())
    assert text.weak_baseline(planted) is None
    monkeypatch.setattr(text, "TOO_LOW", best)  # the baseline is below, the best is not
    assert text.headline(planted) == answer(planted.verdict())
    assert "choose another one with --baseline" in text.weak_baseline(planted)
    monkeypatch.setattr(text, "TOO_LOW", best + 1e-9)
    assert text.weak_baseline(planted) is None
    assert text.headline(planted).startswith("This comparison does not support a ranking: the best")


def test_another_metric_with_low_values_does_not_prevent_a_ranking(planted_root):
    study = Study.load([planted_root], metric="AP90")
    assert study.verdict().summaries[-1].mean < 0.1
    assert text.supports_ranking(study)


def test_without_a_finished_baseline(make_comparison):
    root = make_comparison(seeds=(0,), noise=TWO, unfinished={("base", 0): "failed"})
    study = Study.load([root])
    assert text.headline(study) == "No result yet: the baseline base has no finished run."
    caution = "Only 1 of 2 runs are done (1 failed). The report covers only these."
    assert text.cautions(study)[0] == caution
    assert text.power(study) is None


def test_nothing_detected_and_nothing_to_detect(make_comparison):
    root = make_comparison(noise=TWO, seeds=(0,), images=8)
    (root / "runs/new/seed_0/detections.json").write_text("[]")
    study = Study.load([root])
    assert study.full(study.runs_of("new")[0])["AP"] == 0.0
    assert text.headline(study).startswith("new is worse than base by ")
    truth = json.loads((root / "ground_truth.json").read_text())
    (root / "ground_truth.json").write_text(json.dumps({**truth, "annotations": []}))
    assert text.headline(Study.load([root])).startswith("AP is undefined on this data")
    truth["images"], truth["annotations"] = truth["images"][:1], []
    (root / "ground_truth.json").write_text(json.dumps(truth))
    (root / "runs/base/seed_0/detections.json").write_text("[]")
    assert text.headline(Study.load([root])).startswith("No result: differences cannot be")


def test_cautions_name_the_runs(make_comparison):
    root = make_comparison(noise=TWO, meta={"notes": ["The budget was used up."]})
    (root / "runs/new/seed_1/detections.json").unlink()
    (root / "runs/new/seed_2/history.jsonl").unlink()
    results = json.loads((root / "results.json").read_text())
    results["runs"][0]["metrics"]["AP"] = 0.5  # base seed 0: not the AP of its detections
    results["runs"][0]["proof"]["loss_bbox"]["gradient"] = False
    (root / "results.json").write_text(json.dumps(results))
    study = Study.load([root])
    found = text.cautions(study)
    assert (
        "No finite, nonzero gradient of the loss was observed during training in "
        "base seed 0 (loss_bbox). Check that the training data has boxes." in found
    )
    assert "Not in the statistics, because their detections are missing: new seed 1." in found
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


def test_a_variant_with_an_undefined_metric_is_named(make_comparison):
    unfinished = {("a", 0): "pending", ("b", 1): "pending"}
    noise = {"base": 0.1, "a": 0.05, "b": 0.05}
    study = Study.load([make_comparison(noise=noise, seeds=(0, 1), unfinished=unfinished)])
    assert any("Not in the statistics: b (no finished" in each for each in text.cautions(study))


def test_merged_machines_are_named(make_comparison):
    roots = [
        make_comparison(name, noise=TWO, seeds=(seed,), meta={"hardware": {"cpu": name}})
        for seed, name in enumerate("ab")
    ]
    (sentence,) = (s for s in text.cautions(Study.load(roots)) if s.startswith("Merged from"))
    assert sentence == (
        f"Merged from {roots[0]} and {roots[1]}. "
        "The machines differ, so times and memory are not comparable."
    )


def test_seed_variance_and_power_by_their_definition(planted):
    verdict = planted.verdict()
    sds = [np.std(own.full, ddof=1) for own in planted.scores("AP").values()]
    section = text.power(planted)
    assert f"is {100 * np.sqrt(np.mean(np.square(sds))):.1f} points (pooled;" in section.text
    least, *_, most = sorted(100 * d.detectable for d in verdict.against_baseline)
    assert f"of {least:.1f} points with 80% power ({most:.1f} for the variant" in section.text
    shares = [
        d.seed_sd**2 / 3 / (d.seed_sd**2 / 3 + d.image_se**2) for d in verdict.against_baseline
    ]
    assert f"On average, {np.mean(shares):.0%} of the variance" in section.text


def test_methods_say_what_one_seed_leaves_out(make_comparison, planted):
    one = Study.load([make_comparison(seeds=(0,), noise=TWO)])
    sentence = "the variance over seeds is unknown"
    assert sentence in text.methods(one).text and sentence not in text.methods(planted).text
