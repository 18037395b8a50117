"""Matched loss weights: gradient norms equal the baseline's, on these and on other batches."""

import copy
import json
import math
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from tqdm import tqdm

from det_losses import build_loss
from det_losses.comparison import weight_matching
from det_losses.comparison.gradient_norm import gradient_norms
from det_losses.comparison.variants import select
from det_losses.comparison.warm_up import BATCHES, Lines, effort, warm_up
from det_losses.comparison.weight_matching import (
    MatchedLoss,
    Matching,
    match_variants,
    match_weights,
    ratio_error,
)
from det_losses.engine.build import build_runner
from det_losses.generators import generators_kept
from det_losses.models.published import complete
from det_losses.paths import configs_root

SMOOTH = {"type": "SmoothL1Loss", "beta": 0.11, "loss_weight": 2.0}
LOSSES = {
    "SmoothL1Loss": SMOOTH,
    "L1Loss": {"type": "L1Loss"},
    "GIoULoss": {"type": "GIoULoss", "loss_weight": 2.5},
    "EIoULoss": {"type": "EIoULoss", "loss_weight": 2.5},
}
STEPS, SEED = 6, 3


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def matching(shapes, work_dir):
    return match_weights(
        shapes,
        "loss_bbox",
        LOSSES,
        "SmoothL1Loss",
        work_dir=work_dir,
        warmup_steps=STEPS,
        batches=8,
        seed=SEED,
    )


def with_baseline(cfg):
    own = copy.deepcopy(cfg)
    own.model.loss_bbox = ConfigDict(SMOOTH)
    return own


@pytest.fixture(scope="module")
def models(shapes, work_dir):
    """The same warm-up, gone through once more."""
    return warm_up(with_baseline(shapes), STEPS, SEED, work_dir)


def norms_on(models, model, configs, numbers):
    losses = {label: build_loss(config) for label, config in configs.items()}
    rows = []
    for number in numbers:
        with generators_kept(SEED, number):
            rows.append(gradient_norms(model, models.batches[number], "loss_bbox", losses))
    return {label: np.array([row[label] for row in rows]) for label in configs}


def matched_configs(matching):
    return {
        label: {**LOSSES[label], "loss_weight": loss.loss_weight}
        for label, loss in matching.losses.items()
    }


def test_with_the_matched_weights_all_norms_are_the_baselines(matching, models):
    assert matching.losses["SmoothL1Loss"].loss_weight == pytest.approx(2.0, rel=1e-12)
    norms = norms_on(models, models.trained, matched_configs(matching), range(8))
    for label, values in norms.items():
        assert values.mean() == pytest.approx(norms["SmoothL1Loss"].mean(), rel=1e-6)
        assert matching.losses[label].matched_norm == pytest.approx(values.mean(), rel=1e-6)
    initial = norms_on(models, models.initial, matched_configs(matching), range(8))
    for label, values in initial.items():
        assert matching.losses[label].matched_initial_norm == pytest.approx(values.mean(), rel=1e-6)


def test_norms_before_matching_are_those_of_the_given_weights(matching, models):
    norms = norms_on(models, models.trained, LOSSES, range(8))
    for label, loss in matching.losses.items():
        assert loss.config == LOSSES[label]
        assert loss.given_weight == LOSSES[label].get("loss_weight", 1.0)
        assert loss.norm == pytest.approx(norms[label].mean(), rel=1e-6)
    # The published weights differ by far more than the tolerance for matched ones.
    assert matching.losses["L1Loss"].norm < 0.9 * matching.losses["SmoothL1Loss"].norm


def test_on_other_batches_norms_agree_as_well_as_the_standard_error_says(matching, models):
    norms = norms_on(models, models.trained, matched_configs(matching), range(8, 24))
    baseline = norms.pop("SmoothL1Loss")
    for label, values in norms.items():
        error = math.hypot(matching.losses[label].error, ratio_error(baseline, values))
        assert abs(values.mean() / baseline.mean() - 1) < 3 * error
        assert error < 0.12


@pytest.mark.slow
def test_on_the_quickstart_norms_on_as_many_other_batches_agree_within_2_percent(tmp_path):
    # 62 batches go through the training set once, so matching takes four passes over it. The other
    # batches are of four more, in another order and with other flips.
    cfg = Config.fromfile(configs_root() / "quickstart" / "retinanet_shapes.py")
    for key in ("train_dataloader", "val_dataloader"):
        cfg[key].dataset.data_root = str(tmp_path / "shapes")
    names = ("SmoothL1Loss", "L1Loss", "IoULoss", "GIoULoss", "CIoULoss", "EIoULoss")
    losses = {name: complete("RetinaNet", "loss_bbox", name)[0] for name in names}
    found = match_weights(
        cfg, "loss_bbox", losses, names[0], work_dir=tmp_path, warmup_steps=100, seed=SEED
    )
    cfg.model.loss_bbox = ConfigDict(losses[names[0]])
    models = warm_up(cfg, found.warmup_steps, SEED, tmp_path)
    configs = {k: {**losses[k], "loss_weight": found.losses[k].loss_weight} for k in losses}
    norms = norms_on(models, models.trained, configs, range(BATCHES, 2 * BATCHES))
    ratios = {label: values.mean() / norms[names[0]].mean() for label, values in norms.items()}
    assert ratios == pytest.approx(dict.fromkeys(names, 1.0), abs=0.02)


def test_the_standard_error_of_a_ratio_is_its_spread_over_many_samples():
    # 4000 samples of 24 pairs that share half of their variance: the spread of the ratio of means,
    # as a fraction of it, against the mean of the estimates.
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(4000, 24))
    x = 5 + 0.5 * (shared + rng.normal(size=shared.shape))
    y = 2 + 0.2 * (shared + rng.normal(size=shared.shape))
    ratio = x.mean(1) / y.mean(1)
    estimates = [ratio_error(*pair) for pair in zip(x, y, strict=True)]
    assert np.mean(estimates) == pytest.approx(ratio.std() / ratio.mean(), rel=0.05)
    assert ratio_error(x[0], 3 * x[0]) == pytest.approx(0, abs=1e-12)


def test_no_files_remain_and_the_config_is_unchanged(shapes, work_dir, matching, models):
    assert list(work_dir.iterdir()) == []
    assert shapes.model.loss_bbox.type == "L1Loss" and shapes.val_dataloader
    weights = models.initial.state_dict()
    assert any(not torch.equal(weights[k], v) for k, v in models.trained.state_dict().items())


def test_the_warm_up_is_the_beginning_of_a_training(shapes, tmp_path):
    # A whole training of two epochs of three steps, by mmengine's own loop.
    own = with_baseline(shapes)
    own.train_dataloader.dataset.num_images = 12
    own.train_cfg.max_epochs = 2
    short = copy.deepcopy(own)
    for key in ("val_dataloader", "val_cfg", "val_evaluator"):
        own.pop(key)
    own.work_dir, own.randomness, own.log_level = str(tmp_path / "run"), {"seed": SEED}, "WARNING"
    own.default_hooks.pop("run_record")
    runner = build_runner(own)
    runner.train()
    models = warm_up(short, 6, SEED, tmp_path)
    for key, value in runner.model.state_dict().items():
        assert torch.equal(models.trained.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("trained", "steps", "batches"),
    [(12, 1, 8), (600, 24, 18), (3000, 120, 90), (9000, 360, 256), (88_000, 1000, 256)],
)
def test_warm_up_and_batches_are_a_tenth_of_a_run(trained, steps, batches):
    assert effort(trained) == (steps, batches)
    if trained >= 200:  # below that, the 8 batches are more
        assert steps + batches <= trained / 10
    # Weights of a version with a longer warm-up get further losses on as many batches as theirs.
    assert effort(trained, 2000) == (2000, 256)


def test_without_a_terminal_progress_is_lines(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 12.0, 12.0, 13.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    bar = Lines("warm-up with L1Loss")
    bar.reset(3)  # at 0 s; the first line is due at 10 s
    for _ in range(3):  # at 1 s, 12 s, and the last one
        bar.update()
    lines = ["  warm-up with L1Loss: 2/3", "  warm-up with L1Loss: 3/3"]
    assert capsys.readouterr().out.splitlines() == lines


def test_a_signal_ends_the_warm_up_and_leaves_nothing(shapes, tmp_path):
    class Bar(tqdm):
        def update(self, n=1):
            self.n += n
            if self.n == 2:
                signal.raise_signal(signal.SIGINT)

    bar = Bar(disable=True)
    with pytest.raises(KeyboardInterrupt):
        warm_up(with_baseline(shapes), 20, 0, tmp_path / "new", bar)
    assert bar.n == 2
    assert list((tmp_path / "new").iterdir()) == []


def test_the_record_survives_json(matching):
    stored = json.loads(json.dumps(matching.to_dict(), allow_nan=False))
    assert Matching.from_dict(stored) == matching
    loss = stored["losses"]["GIoULoss"]
    assert loss["matched_norm"] == pytest.approx(stored["losses"]["SmoothL1Loss"]["norm"])


def record(*labels, **changes):
    loss = MatchedLoss({"type": "A"}, 2.0, 3.0, 0.5, 0.25, 0.01)
    return Matching("loss_bbox", "A", 24, 100, 0, dict.fromkeys(labels, loss), **changes)


def test_norms_after_matching_scale_with_the_weight():
    loss = record("A").losses["A"]
    assert loss.matched_norm == 0.75 and loss.matched_initial_norm == 0.375
    assert record("A").source("A") == (
        "gradient norm 0.75, matched to A over 24 batches after 100 steps with A"
    )


def test_joined_matchings_keep_the_stored_numbers():
    stored, new = record("A", "B"), record("A", "B", "C")
    new.losses["B"] = MatchedLoss({"type": "A"}, 2.0, 3.1, 0.5, 0.25, 0.01)
    joined = stored.joined(new)
    assert list(joined.losses) == ["A", "B", "C"]
    assert joined.losses["B"].loss_weight == 3.0
    other = Matching.from_dict({**new.to_dict(), "batches": 8})
    with pytest.raises(ValueError, match=r"over 24 batches.*give another --work-dir"):
        stored.joined(other)
    changed = Matching.from_dict(new.to_dict())
    changed.losses["A"] = MatchedLoss({"type": "Z"}, 2.0, 3.0, 0.5, 0.25, 0.01)
    with pytest.raises(ValueError, match="stored weights of loss_bbox were matched to A"):
        stored.joined(changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slot": "loss_cls"}, "RetinaNet has no box deltas for 'loss_cls'"),
        ({"baseline": "IoULoss"}, "the baseline 'IoULoss' is not one of SmoothL1Loss, L1Loss"),
        ({"batches": 7}, "batches must be at least 8, got 7"),
        ({"warmup_steps": 41}, "warmup_steps must be from 1 to 40, the training steps"),
        ({"warmup_steps": 0}, "warmup_steps must be from 1 to 40"),
        (
            {"losses": {"SmoothL1Loss": {**SMOOTH, "loss_weight": 0.0}}},
            "SmoothL1Loss: loss_weight is 0.0, but matching needs a nonzero number",
        ),
    ],
)
def test_invalid_matchings_are_errors(shapes, tmp_path, changes, message):
    arguments = {"slot": "loss_bbox", "losses": LOSSES, "baseline": "SmoothL1Loss", **changes}
    with pytest.raises(ValueError, match=message):
        match_weights(shapes, work_dir=tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.0, "GIoULoss: the gradient on the box output is zero on all 8 batches"),
        (math.nan, "GIoULoss: the gradient on the box output is NaN or infinite"),
    ],
)
def test_a_loss_without_a_usable_gradient_is_named(
    shapes, models, tmp_path, monkeypatch, value, message
):
    def norms(model, batch, slot, losses):
        return {label: value if label == "GIoULoss" else 1.0 for label in losses}

    monkeypatch.setattr(weight_matching, "gradient_norms", norms)
    monkeypatch.setattr(weight_matching, "warm_up", lambda *args: models)
    with pytest.raises(ValueError, match=message):
        match_weights(shapes, "loss_bbox", LOSSES, "SmoothL1Loss", work_dir=tmp_path, batches=8)


@pytest.mark.parametrize("every", [1, 3, 15, 16])
def test_batches_without_positives_are_not_counted(shapes, models, tmp_path, monkeypatch, every):
    """Of 32 batches that are looked at for 8, each ``every``-th has positives, from the first."""
    numbers = []

    class Batches:
        def __getitem__(self, number):
            numbers.append(number)
            # A batch without boxes, or with boxes that no anchor is assigned to.
            return {"targets": [{"boxes": [0] * (number % 2)}, {"boxes": [0] * (number % 5 == 0)}]}

    def norms(model, batch, slot, losses):
        assert any(len(target["boxes"]) for target in batch["targets"])
        shown = numbers[-1] % every == 0
        return {label: (number + 1.0) * shown for number, label in enumerate(losses)}

    monkeypatch.setattr(weight_matching, "gradient_norms", norms)
    rare = replace(models, batches=Batches())
    monkeypatch.setattr(weight_matching, "warm_up", lambda *args: rare)
    arguments = {"work_dir": tmp_path, "batches": 8}
    positive = [n for n in range(32) if n % every == 0 and (n % 2 or n % 5 == 0)]
    if len(positive) < 2:
        with pytest.raises(ValueError, match=rf"in {len(positive)} of 32 training batches"):
            match_weights(shapes, "loss_bbox", LOSSES, "SmoothL1Loss", **arguments)
        return
    found = match_weights(shapes, "loss_bbox", LOSSES, "SmoothL1Loss", **arguments)
    assert found.batches == min(8, len(positive))
    assert found.losses["L1Loss"].loss_weight == pytest.approx(1 / 2)  # twice the norm


@pytest.fixture
def fake_matching(monkeypatch):
    """Replace the matching by fixed numbers; return the losses of each call."""
    calls = []

    def fake(cfg, slot, losses, baseline, *, work_dir, warmup_steps):
        calls.append(list(losses))
        found = {
            label: MatchedLoss(dict(config), config["loss_weight"], 4.0, 0.5, 1.0, 0.01)
            for label, config in losses.items()
        }
        return Matching(slot, baseline, 24, 100, 0, found)

    monkeypatch.setattr(weight_matching, "match_weights", fake)
    return calls


def test_matched_weights_are_kept_for_the_next_command(cfg, tmp_path, fake_matching):
    selection = select(cfg, ["L1Loss", "GIoULoss"], matched=True)
    variants = match_variants(cfg, selection, tmp_path)
    assert [v.loss("loss_bbox")["loss_weight"] for v in variants] == [4.0, 4.0]
    assert variants[1].weight["how"] == "matched"
    assert variants[1].weight["gradient_norm"] == pytest.approx(0.5 * 4.0 / 2.5)
    assert "matched to L1Loss" in variants[1].source
    assert match_variants(cfg, selection, tmp_path) == variants
    match_variants(cfg, select(cfg, ["L1Loss", "DIoULoss"], matched=True), tmp_path)
    assert fake_matching == [["L1Loss", "GIoULoss"], ["L1Loss", "DIoULoss"]]
    stored = json.loads((tmp_path / "matched_weights.json").read_text())
    assert set(stored["losses"]) == {"L1Loss", "GIoULoss", "DIoULoss"}


def test_a_damaged_file_of_matched_weights_is_matched_again(cfg, tmp_path, fake_matching):
    selection = select(cfg, ["L1Loss", "GIoULoss"], matched=True)
    variants = match_variants(cfg, selection, tmp_path)
    file = tmp_path / "matched_weights.json"
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    assert match_variants(cfg, selection, tmp_path) == variants
    assert (len(fake_matching), file.read_text()) == (2, whole)


def test_weights_matched_to_a_different_baseline_are_an_error(cfg, tmp_path, fake_matching):
    match_variants(cfg, select(cfg, ["L1Loss", "GIoULoss"]), tmp_path)
    other = select(cfg, ["L1Loss", "GIoULoss"], baseline="GIoULoss")
    with pytest.raises(
        ValueError, match="was matched to L1Loss, but this command matches loss_bbox to GIoU"
    ):
        match_variants(cfg, other, tmp_path)


def test_data_without_positives_are_given_up_early(monkeypatch):
    tried = []
    monkeypatch.setattr(
        weight_matching, "gradient_norms", lambda *args: tried.append(1) or {"L1Loss": 0.0}
    )
    # every other batch has a box, but none has a positive
    batches = [{"targets": [{"boxes": [0] * (number % 2)}]} for number in range(1024)]
    warmed = SimpleNamespace(batches=batches, trained=None)
    with pytest.raises(ValueError, match="in 0 of 128 training batches, which is too few"):
        weight_matching._norms(warmed, "loss_bbox", {"L1Loss": None}, 256, 0, tqdm(disable=True))
    assert len(tried) == 64
