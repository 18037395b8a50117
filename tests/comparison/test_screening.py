import numpy as np
import pytest
from mmengine.config import Config

from det_losses.comparison.screening import KEEP, RISK, screen, shorten
from det_losses.comparison.variants import Variant


@pytest.fixture
def cfg():
    return Config(
        {
            "train_cfg": {"by_epoch": True, "max_epochs": 12, "val_interval": 4},
            "param_scheduler": [
                {"type": "LinearLR", "by_epoch": False, "begin": 0, "end": 50},
                {"type": "MultiStepLR", "by_epoch": True, "milestones": [8, 11]},
            ],
        }
    )


def trained(values):
    """Trainings whose scores are known; a variant without one has no result."""
    calls = []

    def train(cfg, variants, folder):
        calls.append((cfg.train_cfg.max_epochs, [v.label for v in variants], folder.name))
        return {v.label: values[v.label] for v in variants if v.label in values}

    train.calls = calls
    return train


def variants(labels):
    return [Variant(label, {}) for label in labels]


def test_a_short_training_scales_its_schedule(cfg):
    short = shorten(cfg)
    assert (short.train_cfg.max_epochs, short.train_cfg.val_interval) == (6, 6)
    assert short.param_scheduler[0].end == 50  # counts iterations
    assert short.param_scheduler[1].milestones == [4, 6]  # 8 and 11 halved
    assert cfg.train_cfg.max_epochs == 12


def test_a_training_by_iterations_is_halved_with_all_schedules(tmp_path):
    cfg = Config(
        {
            "train_cfg": {"by_epoch": False, "max_iters": 1000, "val_interval": 100},
            "param_scheduler": [
                {"type": "CosineAnnealingLR", "by_epoch": False, "T_max": 1000},
                {"type": "MultiStepLR", "milestones": [8, 11]},
            ],
        }
    )
    short = shorten(cfg)
    assert (short.train_cfg.max_iters, short.train_cfg.val_interval) == (500, 500)
    assert short.param_scheduler[0].T_max == 500
    assert short.param_scheduler[1].milestones == [4, 6]
    folders = []

    def train(cfg, variants, folder):
        folders.append(folder.name)
        return {"A": 0.2, "B": 0.1, "C": 0.3}

    _, dropped = screen(cfg, variants("ABC"), "A", tmp_path, "AP", train)
    assert folders == ["500_iterations"]
    assert str(dropped[0]).startswith("Screening dropped B after 500 iterations: ")
    cfg.train_cfg.max_iters = 1
    with pytest.raises(ValueError, match="at least 2 iterations"):
        shorten(cfg)


def test_the_worse_half_is_dropped_but_never_the_baseline(cfg, tmp_path):
    values = {"A": 0.10, "B": 0.30, "C": 0.29, "D": 0.05, "E": 0.06, "F": 0.12}
    train = trained(values)
    left, dropped = screen(cfg, variants("ABCDEF"), "A", tmp_path, "AP50", train)
    # B, C and F are the better half; the baseline A is ranked fourth and stays beside them.
    assert [variant.label for variant in left] == ["A", "B", "C", "F"]
    assert list(map(str, dropped)) == [
        "Screening dropped E after 6 epochs: 6.0 AP50, rank 5 of 6.",
        "Screening dropped D after 6 epochs: 5.0 AP50, rank 6 of 6.",
    ]
    assert train.calls == [(6, ["A", "B", "C", "D", "E", "F"], "6_epochs")]


def test_the_larger_half_of_an_odd_number_is_kept(cfg, tmp_path):
    values = {"A": 0.10, "B": 0.13, "C": 0.09}
    _, dropped = screen(cfg, variants("ABC"), "A", tmp_path, "AP", trained(values))
    assert [each.label for each in dropped] == ["C"]


def test_variants_without_a_result_are_kept(cfg, tmp_path):
    values = {"A": 0.10, "B": 0.30, "D": 0.05}
    for labels in ("ABCD", "CABD"):  # C without a result is another variant, or the baseline
        left, dropped = screen(cfg, variants(labels), labels[0], tmp_path, "AP", trained(values))
        assert sorted(variant.label for variant in left) == ["A", "B", "C"]
        assert [each.label for each in dropped] == ["D"]


def test_two_variants_are_not_screened(cfg, tmp_path):
    train = trained({"A": 0.1, "B": 0.2})
    assert screen(cfg, variants("AB"), "A", tmp_path, "AP", train)[1] == []
    assert train.calls == []


def test_a_training_too_short_for_screening_is_an_error(cfg):
    cfg.train_cfg.max_epochs = 1
    with pytest.raises(ValueError, match="at least 2 epochs"):
        shorten(cfg)


def test_the_stated_risk_is_that_of_the_rule():
    """Eight normal scores with SD 1, one of them better by 1, which is dropped below rank 4."""
    scores = np.random.default_rng(0).normal(size=(100_000, 8))
    scores[:, 0] += 1
    better = (scores[:, 1:] > scores[:, :1]).sum(axis=1)
    dropped = np.mean(better >= 8 * KEEP)
    assert f"{dropped:.0%} of cases" in RISK
