"""Running a training in a test."""

import contextlib

import pytest

from det_losses.cli import train
from det_losses.comparison import comparison
from det_losses.comparison.process import LocalExecutor
from det_losses.engine import build_runner
from det_losses.engine.signals import StopHook
from det_losses.options.comparison import ComparisonOptions


def run(cfg, *hooks):
    """Train a config with further hooks, which run last; return the runner."""
    runner = build_runner(cfg)
    for hook in hooks:
        runner.register_hook(hook, priority="LOWEST")
    runner.train()
    return runner


def compare(cfg, root, losses=(), **options):
    """Compare losses of a config in a directory."""
    options = ComparisonOptions(config="tiny", work_dir=str(root), losses=losses, **options)
    return comparison.compare(cfg, options)


def train_here(command, log, tick, *, keep_open, env):
    """Run a `train` command in this process, with its output in its log."""
    with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            return train.main(command[command.index("train") + 1 :])
        except SystemExit as end:
            return end.code


@contextlib.contextmanager
def runs_in_this_process():
    """Let the runs of comparisons train in this process, which saves the imports of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalExecutor, "run", staticmethod(train_here))
        # Signals can be taken in the main thread only, and runs have threads of their own.
        patch.setattr(StopHook, "listening", lambda self: contextlib.nullcontext())
        yield
