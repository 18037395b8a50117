import json
import re

import numpy as np
import pytest
from verdicts import verdict_of

from det_losses.evaluation.metrics import METRICS
from det_losses.report import answer as module
from det_losses.report import details, summary
from det_losses.report.answer import answer, headline, supports_ranking
from det_losses.report.cautions import cautions
from det_losses.report.study import Study
from det_losses.statistics import Scores, analyse

TWO = {"base": 0.1, "new": 0.05}
THREE = {"SmoothL1Loss": 0.35, "EIoULoss": 0.373, "GIoULoss": 0.370}
LONG = "FocalEIoULoss(gamma=0.5, loss_weight=1.5)"


def sentences(text):
    return re.findall(r"\.(?= |$)", text)


def test_a_single_candidate_of_two():
    means = {"L1Loss": 0.35, "EIoULoss": 0.372}
    assert answer(verdict_of(means, {"EIoULoss": 0.0}, metric="AP75")) == (
        "Use EIoULoss. It is better than L1Loss by 2.2 AP75 [1.3, 3.1] (95%)."
    )
    swapped = {"EIoULoss": 0.372, "L1Loss": 0.35}  # the baseline is the better one
    assert answer(verdict_of(swapped, {"EIoULoss": 0.0})) == (
        "Use EIoULoss. It is better than L1Loss by 2.2 AP [1.3, 3.1] (95%)."
    )


def test_a_single_candidate_and_its_gain_over_the_baseline():
    assert answer(verdict_of(THREE, {"EIoULoss": 0.0})) == (
        "Use EIoULoss. It is better than GIoULoss and SmoothL1Loss (95%); the gain over the "
        "baseline SmoothL1Loss is 2.3 AP [1.4, 3.2]."
    )
    many = THREE | {"IoULoss": 0.34, LONG: 0.33}
    assert "It is better than all 4 others (95%); the gain" in answer(
        verdict_of(many, {"EIoULoss": 0.0})
    )
    keep = {"L1Loss": 0.38} | THREE
    assert answer(verdict_of(keep, {"L1Loss": 0.0})).endswith("(95%); it is the baseline.")


def test_no_gain_is_stated_whose_interval_includes_zero():
    """One-sided intervals exclude more than the two-sided ones that are shown."""
    means = {"L1Loss": 0.35, "EIoULoss": 0.358}
    assert answer(verdict_of(means, {"EIoULoss": 0.0})) == (
        "Use EIoULoss. It is better than L1Loss (95%)."
    )


def test_two_candidates():
    assert answer(verdict_of(THREE, {"EIoULoss": 0.0113, "GIoULoss": 0.014})) == (
        "Use EIoULoss or GIoULoss. SmoothL1Loss is worse than the best (95%); choosing EIoULoss "
        "costs at most 1.2 AP."
    )
    many = THREE | {f"Worse{i}Loss": 0.3 for i in range(5)}
    assert ". The other 6 are worse than the best (95%); choosing" in answer(
        verdict_of(many, {"EIoULoss": 0.012, "GIoULoss": 0.014})
    )


def test_no_variant_is_excluded():
    two = {"L1Loss": 0.35, "EIoULoss": 0.353}
    assert answer(verdict_of(two, {"EIoULoss": 0.021, "L1Loss": 0.03})) == (
        "EIoULoss and L1Loss cannot be told apart yet. Choosing EIoULoss costs at most 2.1 AP "
        "(95%)."
    )
    assert answer(verdict_of(THREE, dict.fromkeys(THREE, 0.03) | {"EIoULoss": 0.02})).startswith(
        "None of the 3 variants can be excluded: each may be the best. Choosing "
    )


def test_a_cost_of_more_than_all_points_is_not_stated():
    """With two seeds an interval can be wider than 100 AP."""
    two = {"L1Loss": 0.35, "EIoULoss": 0.353}
    assert answer(verdict_of(two, {"EIoULoss": 1.3, "L1Loss": 1.4})).endswith(
        ". There are too few seeds to say what a wrong choice costs."
    )


def test_equivalent_variants():
    assert answer(verdict_of(THREE, {"EIoULoss": 0.008, "GIoULoss": 0.01})) == (
        "EIoULoss and GIoULoss are within 1 AP of each other (95%): choose either. "
        "SmoothL1Loss is worse than the best (95%)."
    )
    assert answer(verdict_of(THREE, dict.fromkeys(THREE, 0.004), within=0.005)) == (
        "SmoothL1Loss, EIoULoss and GIoULoss are within 0.5 AP of each other (95%): choose any "
        "of them."
    )


def test_a_leader_whose_cost_does_not_matter():
    """The second candidate may cost more than the margin, the leader not."""
    assert answer(verdict_of(THREE, {"EIoULoss": 0.0071, "GIoULoss": 0.03})) == (
        "Use EIoULoss: no other variant is more than 0.8 AP better (95%). "
        "SmoothL1Loss is worse than the best (95%)."
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("cost", [0.004, 0.02])
def test_at_most_two_sentences_and_no_long_list(count, cost):
    means = {"base": 0.3} | {f"Loss{i}": 0.4 - i / 1000 for i in range(9)}
    regrets = {f"Loss{i}": cost * (count > 1) for i in range(count)}
    text = answer(verdict_of(means, regrets))
    assert len(sentences(text)) <= 2
    assert len(text) < 180
    assert "best) =" not in text  # a probability of being the best is never stated


def test_one_seed_shows_nothing():
    assert answer(verdict_of(THREE, seeds=1)) == (
        "One seed cannot show which variant is better: the variation between trainings is "
        "unknown, and another seed may reverse the order."
    )
    assert answer(verdict_of(THREE, seeds=3)).startswith("The runs of each variant are the same")


def test_one_variant():
    assert answer(verdict_of({"L1Loss": 0.352})) == (
        "AP of L1Loss is 35.2. There is no other variant to compare it with."
    )
    assert answer(verdict_of({"L1Loss": None}, metric="APs")) == (
        "APs of L1Loss is undefined. There is no other variant to compare it with."
    )


def test_metric_of_a_class():
    verdict = verdict_of({"L1Loss": 0.35, "EIoULoss": 0.37}, {"EIoULoss": 0}, metric="AP/bus stop")
    assert "by 2.0 AP of bus stop [1.1, 2.9]" in answer(verdict)


def test_no_ground_truth():
    undefined = verdict_of({"L1Loss": None, "EIoULoss": None}, metric="APl")
    assert answer(undefined) == (
        "APl is undefined on this data, so the variants cannot be compared."
    )


@pytest.mark.parametrize(
    ("value", "half", "words"),
    [
        (0.0005, 0.0001, "by 0.05 AP [0.04, 0.06]"),
        (0.00007, 0.00005, "by 0.007 AP [0.002, 0.012]"),
        (0.0130, 0.0129, "by 1.30 AP [0.01, 2.59]"),
    ],
)
def test_a_bound_that_is_not_zero_is_not_shown_as_zero(value, half, words):
    assert words in answer(verdict_of({"a": 0.35, "b": 0.35 + value}, {"b": 0}, half=half))


def test_the_answer_of_scores_without_image_noise():
    """Two losses whose per-seed differences are 1, 2 and 3 points.

    Their mean is 2 and their SD 1 point, so SE = 1 / sqrt(3) = 0.577. Two-sided, t(2) at 97.5% is
    4.303, so the interval is 2 -+ 2.48. One-sided, t(2) at 95% is 2.920, so the leader may be
    behind by at most 2.920 x 0.577 - 2 = -0.31: not at all, and it is the only candidate. With a
    fourth point less, at 1.6 points, the bound is 0.09.
    """

    def verdict(shift):
        base, draws = np.array([0.30, 0.31, 0.32]), np.zeros((10, 1))
        new = base + np.array([0.01, 0.02, 0.03]) - shift
        scores = {"a": Scores((0, 1, 2), base, base + draws)}
        return analyse(scores | {"b": Scores((0, 1, 2), new, new + draws)}, "a", 100)

    assert answer(verdict(0)) == "Use b. It is better than a (95%)."
    assert answer(verdict(0.004)) == "Use b: no other variant is more than 0.1 AP better (95%)."


def test_below_ap_10_there_is_no_ranking(planted, monkeypatch):
    best = max(float(own.full.mean()) for own in planted.scores("AP").values())
    monkeypatch.setattr(module, "TOO_LOW", best)
    assert headline(planted) == answer(planted.verdict())
    monkeypatch.setattr(module, "TOO_LOW", best + 1e-9)
    assert headline(planted).startswith("This comparison does not support a ranking: the best")


def test_a_metric_that_is_low_by_its_nature_does_not_forbid_a_ranking(planted_root):
    study = Study.load([planted_root], metric="AP90")
    assert study.verdict().summaries[-1].mean < 0.1
    assert supports_ranking(study)


def test_without_a_finished_baseline(make_comparison):
    root = make_comparison(seeds=(0,), noise=TWO, unfinished={("base", 0): "failed"})
    assert headline(Study.load([root])) == "No result yet: the baseline base has no finished run."


def test_nothing_detected_and_nothing_to_detect(make_comparison):
    root = make_comparison(noise=TWO, seeds=(0, 1, 2), images=8)
    for seed in range(3):
        (root / f"runs/new/seed_{seed}/detections.json").write_text("[]")
    study = Study.load([root])
    assert study.full(study.runs_of("new")[0])["AP"] == 0.0
    assert headline(study).startswith("Use base. It is better than new by ")
    truth = json.loads((root / "ground_truth.json").read_text())
    (root / "ground_truth.json").write_text(json.dumps({**truth, "annotations": []}))
    assert headline(Study.load([root])).startswith("AP is undefined on this data")
    truth["images"], truth["annotations"] = truth["images"][:1], []
    (root / "ground_truth.json").write_text(json.dumps(truth))
    for seed in range(3):
        (root / f"runs/base/seed_{seed}/detections.json").write_text("[]")
    assert headline(Study.load([root])).startswith("No result: differences cannot be")


def test_a_metric_chosen_afterwards_decides_nothing(make_comparison):
    root = make_comparison(noise={"base": 0.16, "new": 0.03})
    for metric in ("AP", "AP50", "AP75"):
        study = Study.load([root], metric=metric)
        text = headline(study)
        if metric == "AP":  # for which the comparison was made
            assert text.startswith("Use new. It is better than base")
            assert not any("chosen after" in each for each in cautions(study))
            continue
        assert text.startswith(
            f"Exploratory: {metric} was chosen after the training, which was planned for AP. new "
        )
        assert not re.search(r"beats|better|the best|Use ", text)
        assert cautions(study)[0].startswith(f"{metric} was chosen after the training;")


def test_one_seed_decides_nothing_whatever_metric_is_chosen_afterwards(make_comparison):
    """With the planted difference every metric but one of few boxes would look convincing."""
    root = make_comparison(seeds=(0,), noise={"base": 0.16, "new": 0.03})
    for metric in (*METRICS, "AP/cat", "AP/dog", "AP/bird"):
        study = Study.load([root], metric=metric)
        assert headline(study).startswith("One seed cannot show which variant is better")
        text = summary(study) + details(study)
        assert not re.search(r"beats|is better than|is the best|Use (new|base)|worse than", text)
