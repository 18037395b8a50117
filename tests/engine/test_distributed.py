"""Two processes train and evaluate as one does; a dead one ends the other with the reason."""

import json
import os
import signal
from itertools import chain
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from ranks import on_ranks, start_ranks
from torch.utils.data import DataLoader

from det_losses.data.rank_sampler import RankSampler
from det_losses.engine import build_runner
from det_losses.engine.run import build_parts, train_run

# Seven images of one size: the last batch of four has three, so one rank has a single image.
IMAGES = [
    (20 + i, 64, 64, ((3 if i % 2 else 7, [4 + 3 * i, 6, 20 + i, 30], 0),) * (i != 2))
    for i in range(7)
]


@pytest.fixture
def shares(monkeypatch):
    """The batches of each rank."""

    def find(length, ranks, batch_size, **options):
        found = []
        for rank in range(ranks):
            info = lambda rank=rank: (rank, ranks)  # noqa: E731
            monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", info)
            sampler = RankSampler(range(length), batch_size, seed=3, **options)
            sampler.set_epoch(2)
            drops = options.get("drop_last", False)
            loader = DataLoader(
                range(length), batch_size, sampler=sampler, collate_fn=list, drop_last=drops
            )
            found.append(list(loader))
            assert len(found[-1]) == len(loader)
        return found

    return find


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("length", [24, 23, 18])
def test_in_training_the_ranks_divide_each_batch_of_one_process(shares, length, drop_last):
    (one,) = shares(length, 1, 8, drop_last=drop_last)
    ranks = shares(length, 4, 2, drop_last=drop_last)
    assert len(one) == (length // 8 if drop_last else 3)
    for batch, *parts in zip(one, *ranks, strict=True):
        # Two images for four ranks: the first two of the epoch fill up, so that none waits.
        filling = one[0][: 4 - len(batch)] if len(batch) < 4 else []
        assert sorted(chain(*parts)) == sorted(batch + filling)


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_in_evaluation_each_rank_has_whole_batches_of_one_process(shares, ranks):
    """Images of a batch are padded to the same size, which changes detections slightly."""
    options = {"whole_batches": True, "shuffle": False}
    (one,) = shares(11, 1, 3, **options)
    assert sorted(chain(*shares(11, ranks, 3, **options))) == one


def config(tiny_config, folder, batch_size, **changes):
    cfg = Config.fromfile(tiny_config)
    cfg.merge_from_dict(
        {
            "work_dir": str(folder),
            "train_dataloader.batch_size": batch_size,
            "val_dataloader.batch_size": 8,  # one batch, so that one rank evaluates nothing
            "val_evaluator.out_file": "detections.json",
            # The threads of hotcoco do not survive a fork.
            "val_evaluator.backend": "pycocotools",
            "train_cfg.val_interval": 2,
            "optim_wrapper.clip_grad": {"max_norm": 1.0},
            "auto_scale_lr": {"enable": True, "base_batch_size": 2},
            "model.score_thresh": 0.0,
            **changes,
        }
    )
    return cfg


def train(cfg):
    runner = build_runner(cfg)
    build_parts(runner)
    train_run(runner, cfg)
    return runner.optim_wrapper.get_lr()["lr"][0]


def evaluate(cfg):
    return build_runner(cfg, train=False).test()


@pytest.fixture
def tiny_config(tiny_coco, tiny_config):
    """A RetinaNet on IMAGES."""
    own = tiny_coco("one_size", IMAGES)
    known = tiny_coco("known", IMAGES[:1])
    text = tiny_config.read_text()
    folder = known.image_dir.replace("known", "tiny")
    text = text.replace(folder, own.image_dir)
    text = text.replace(known.ann_file.replace("known", "tiny"), own.ann_file)
    tiny_config.write_text(text)
    return tiny_config


def test_two_ranks_train_and_evaluate_as_one_process(tiny_config, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    rate = train(config(tiny_config, one, 4))
    checkpoint = str(one / "epoch_2.pth")
    tested = dict(load_from=checkpoint, **{"val_dataloader.batch_size": 3})
    expected = evaluate(config(tiny_config, one / "test", 4, **tested))

    def work(rank):
        rate = train(config(tiny_config, two, 2, launcher="pytorch"))
        torch.distributed.init_process_group(
            "gloo", f"file://{tmp_path}/again", rank=rank, world_size=2
        )
        cfg = config(tiny_config, two / "test", 2, launcher="pytorch", **tested)
        return rate, evaluate(cfg)

    found = on_ranks(work, tmp_path)
    # 4 images a step instead of 2, in one process or two
    assert [rate, *(each[0] for each in found)] == [pytest.approx(0.02)] * 3
    same = pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    assert all(each[1] == same for each in found)
    weights = [torch.load(run / "epoch_2.pth")["state_dict"] for run in (one, two)]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)
    files = [run / "test" / "detections.json" for run in (one, two)]
    assert len(json.loads(files[0].read_text())) > 7
    assert files[1].read_bytes() == files[0].read_bytes()
    records = [json.loads((run / "metrics.json").read_text()) for run in (one, two)]
    assert records[1]["metrics"] == pytest.approx(records[0]["metrics"], nan_ok=True, abs=1e-6)
    for each in zip(*map(history, (one, two)), strict=True):
        assert each[1] == pytest.approx(each[0], rel=1e-4)


def history(run):
    """The logged losses of a run."""
    lines = map(json.loads, (run / "history.jsonl").read_text().splitlines())
    return [line["losses"] for line in lines if line["kind"] == "train"]


class Dies(Hook):
    """Ends rank 1 by a signal before its second step."""

    def __init__(self, number):
        self.number = number

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.rank == 1 and runner.iter == 1:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_rank_ends_the_others_with_the_reason(toy_cfg, tmp_path, number):
    """A stopped process keeps its connections open, as one whose machine has failed."""

    def work(rank):
        watch = dict(type="RankWatchHook", patience=0.5)
        cfg = toy_cfg(launcher="pytorch", custom_hooks=[watch])
        runner = build_runner(cfg)
        runner.register_hook(Dies(number))
        train_run(runner, Config(cfg))

    alive, dead = start_ranks(work, tmp_path)
    alive.join(20)
    os.kill(dead.pid, signal.SIGKILL)
    assert alive.exitcode == 1
    reason = f"error: rank 1 of 2 (process {dead.pid} on "
    text = Path(tmp_path, "rank0.log").read_text()
    assert reason in text and "--resume continues from the last checkpoint" in text
