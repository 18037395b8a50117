"""A bar on a terminal, plain lines elsewhere, never both."""

import os
import pty
import re
import sys
from types import SimpleNamespace

import pytest
from mmengine.hooks import Hook

from det_losses.engine import build_runner, progress, runner


@pytest.mark.parametrize(
    ("out", "err", "expected"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_a_bar_needs_a_terminal(monkeypatch, out, err, expected):
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: out))
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: err))
    assert runner.shows_bar() is expected


def test_pipe_gets_lines_and_no_bar(toy_cfg, capfd):
    build_runner(toy_cfg(epochs=1)).train()
    captured = capfd.readouterr()
    assert captured.out.count("loss_bbox:") == 3
    assert captured.err == ""


@pytest.fixture
def terminal(monkeypatch):
    for module in (progress, runner):
        monkeypatch.setattr(module, "shows_bar", lambda: True)
    monkeypatch.setattr(progress, "tqdm", lambda **options: _tqdm(**options, mininterval=0))


_tqdm = progress.tqdm


def test_terminal_gets_a_bar_and_no_lines(toy_cfg, capfd, terminal):
    build_runner(toy_cfg(epochs=2)).train()
    captured = capfd.readouterr()
    for part in ("epoch 1/2", "epoch 2/2", "3/3", "loss_cls 0.", "loss_bbox ", "eta 0:00:0", "val"):
        assert part in captured.err, part
    assert re.search(r"epoch 2/2 .* AP \d+\.\d \(epoch 1\)  eta 0:00:0", captured.err)
    assert "Epoch(train)" not in captured.out
    assert "Evaluated 6 images" in captured.out
    assert "Saving checkpoint" in captured.out


def test_the_bar_of_an_evaluation_is_closed_before_its_table(toy_cfg, terminal):
    class Look(Hook):
        def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            (hook,) = [hook for hook in runner.hooks if isinstance(hook, progress.ProgressHook)]
            seen.append(set(hook._bars))

    seen = []
    runner = build_runner(toy_cfg(epochs=1))
    runner.register_hook(Look(), priority="LOWEST")
    runner.train()
    assert seen == [{"val"}, {"val"}, set()]


def test_bar_on_a_terminal_of_unknown_size(terminal, monkeypatch):
    # As `script` and some containers make them: 0 columns, 0 lines.
    try:
        main, side = pty.openpty()
    except OSError as error:
        pytest.skip(f"this machine gives no terminal to tests: {error}")
    os.set_blocking(main, False)
    with os.fdopen(side, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        loop = SimpleNamespace(dataloader=[0] * 3)
        hook = progress.ProgressHook()
        hook._before_epoch(SimpleNamespace(val_loop=loop), "val")
        assert b"0/3" in os.read(main, 10000)
        hook._after_epoch(None, "val")
    os.close(main)


def test_bar_of_a_loop_by_iterations(toy_cfg, capfd, terminal):
    cfg = toy_cfg(train_cfg=dict(by_epoch=False, max_iters=4, val_interval=2))
    cfg["train_dataloader"]["sampler"]["type"] = "InfiniteSampler"
    cfg["log_processor"]["by_epoch"] = False
    cfg["default_hooks"]["checkpoint"].update(by_epoch=False, interval=2)
    build_runner(cfg).train()
    err = capfd.readouterr().err
    for part in ("train", "4/4", "val"):
        assert part in err
