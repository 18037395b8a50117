from types import SimpleNamespace

import pytest
from mmengine.config import Config

from det_losses.compare.screening import screen, shorten
from det_losses.compare.variants import Variant


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


def trained(values, error):
    """Trainings whose scores are known; an interval is the value and the error either way."""
    rungs = []

    def train(cfg, variants, folder, fraction):
        assert cfg.train_cfg.max_epochs == 12 * fraction
        rungs.append((cfg.train_cfg.max_epochs, [v.label for v in variants], folder.name))
        done = [v.label for v in variants if v.label in values]
        if variants[0].label not in done:
            return None

        def difference(first, second):
            value = values[first] - values[second]
            return SimpleNamespace(
                first=first, second=second, value=value, low=value - error, high=value + error
            )

        best_first = sorted(done, key=values.get, reverse=True)
        summaries = [SimpleNamespace(label=label) for label in best_first]
        return SimpleNamespace(metric="AP50", summaries=summaries, difference=difference)

    train.rungs = rungs
    return train


def variants(labels):
    return [Variant(label, {}) for label in labels]


def test_a_short_training_scales_its_schedule(cfg):
    short = shorten(cfg, 0.5)
    assert (short.train_cfg.max_epochs, short.train_cfg.val_interval) == (6, 6)
    assert short.param_scheduler[0].end == 50  # counts iterations
    assert short.param_scheduler[1].milestones == [4, 6]  # 8 and 11 halved
    assert cfg.train_cfg.max_epochs == 12


def test_clearly_worse_variants_are_dropped_but_at_most_half(cfg, tmp_path):
    values = {"A": 0.10, "B": 0.30, "C": 0.29, "D": 0.05, "E": 0.06, "F": 0.07}
    train = trained(values, error=0.02)
    left, dropped = screen(cfg, variants("ABCDEF"), "A", tmp_path, train)
    # The worst three of six, but for the baseline A; then none of B and C, which are near.
    assert [variant.label for variant in left] == ["A", "B", "C"]
    assert [each.label for each in dropped] == ["D", "E", "F"]
    assert train.rungs == [
        (3, ["A", "B", "C", "D", "E", "F"], "3_epochs"),
        (6, ["A", "B", "C"], "6_epochs"),
    ]
    assert str(dropped[0]) == (
        "Screening dropped D after 3 epochs: -25.0 AP50 [-27.0, -23.0] compared with "
        "B, the best variant at that point."
    )


def test_variants_without_a_result_are_kept(cfg, tmp_path):
    values = {"A": 0.10, "B": 0.30, "D": 0.05}
    left, dropped = screen(cfg, variants("ABCD"), "A", tmp_path, trained(values, error=0.02))
    assert [variant.label for variant in left] == ["A", "B", "C"]
    assert [each.label for each in dropped] == ["D"]
    left, dropped = screen(cfg, variants("CABD"), "C", tmp_path, trained(values, error=0.02))
    assert (len(left), dropped) == (4, [])


def test_variants_without_a_clear_difference_are_kept(cfg, tmp_path):
    values = {"A": 0.10, "B": 0.13, "C": 0.12}
    left, dropped = screen(cfg, variants("ABC"), "A", tmp_path, trained(values, error=0.05))
    assert len(left) == 3
    assert dropped == []


def test_a_training_too_short_for_screening_is_an_error(cfg):
    cfg.train_cfg.max_epochs = 3
    with pytest.raises(ValueError, match="at least 4 epochs"):
        shorten(cfg, 0.25)
