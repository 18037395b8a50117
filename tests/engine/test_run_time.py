"""What a run is expected to take."""

import pytest
import torch
from mmengine.config import Config

from det_losses.engine import build_runner, run_time
from det_losses.engine.run import build_parts
from det_losses.engine.run_record import weights_hash
from det_losses.engine.run_time import RunTime, measure, measure_run


def test_a_run_is_measured_by_its_steps_and_evaluations(toy_cfg):
    short = measure_run(Config(toy_cfg(epochs=1)))
    train = dict(by_epoch=True, max_epochs=100_000, val_interval=50_000)
    long = measure_run(Config(toy_cfg(train_cfg=train)))
    assert long.training > 1000 * short.training
    assert (short.evaluations, long.evaluations) == (1, 2)


def test_a_measurement_leaves_files_and_random_numbers_as_they_were(toy_cfg, tmp_path):
    cfg = Config(toy_cfg(epochs=1))
    before, state = cfg.to_dict(), torch.get_rng_state()
    found = measure_run(cfg)
    assert cfg.to_dict() == before
    assert torch.equal(torch.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []
    # Two checkpoints of at most a few kB, and the detections of six images.
    assert 6 * run_time._DETECTIONS < found.disk < 6 * run_time._DETECTIONS + 10_000


def test_a_measured_run_trains_like_one_that_was_not_measured(toy_cfg, tmp_path):
    found = []
    for measured in (False, True):
        work_dir = str(tmp_path / str(measured))
        sampler = dict(type="InfiniteSampler", shuffle=True)  # which has a state
        cfg = Config(toy_cfg(epochs=1, work_dir=work_dir))
        cfg.train_cfg = dict(by_epoch=False, max_iters=5, val_interval=5)
        cfg.train_dataloader.sampler = sampler
        cfg.optim_wrapper.clip_grad = dict(max_norm=0.01)
        runner = build_runner(cfg)
        build_parts(runner)
        if measured:
            measure(runner, 0.0)
        runner.train()
        scalars = runner.message_hub.log_scalars
        logs = {key: scalars[key].data[0].tolist() for key in ("train/loss", "train/grad_norm")}
        found.append((logs, weights_hash(runner.model)))
    assert found[0] == found[1]
    assert len(found[0][0]["train/grad_norm"]) == 5


def test_a_measurement_of_slow_steps_is_short(toy_cfg, monkeypatch):
    steps = []
    monkeypatch.setattr(run_time, "_LIMIT", 0.0)
    monkeypatch.setattr(run_time, "_synchronise", lambda: steps.append(1))
    measure_run(Config(toy_cfg()))
    assert len(steps) == 3  # one to warm up, one timed, and the evaluated batch


@pytest.mark.parametrize(
    ("evaluation", "evaluations", "note"),
    [
        (20.0, 1, None),
        (40.0, 4, "Evaluation will take 40% of the training time; train_cfg.val_interval="),
        (40.0, 1, "Evaluation will take 40% of the training time; val_dataloader.dataset.num_"),
    ],
)
def test_an_expensive_evaluation_is_stated_with_its_remedy(evaluation, evaluations, note):
    found = RunTime(10.0, 100.0, evaluation, evaluations).note
    assert found is None if note is None else found.startswith(note)
