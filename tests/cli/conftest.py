"""What a run of ``tiny_config`` does besides training."""

import os

import pytest

HOOKS_MODULE = '''
import os, pathlib, signal
from mmengine.hooks import Hook
from det_losses.registry import HOOKS


@HOOKS.register_module(force=True)
class OnceHook(Hook):
    """Does something after the first epoch, once: a marker file tells that it was done."""

    def __init__(self, marker, action):
        self.marker, self.action = pathlib.Path(marker), getattr(self, action)

    def after_train_epoch(self, runner):
        if not self.marker.exists() and runner.epoch == 1:
            self.marker.touch()
            self.action()

    def stop_self(self):
        os.kill(os.getpid(), signal.SIGTERM)

    def stop_comparison(self):
        os.kill(int(os.environ["COMPARISON"]), signal.SIGTERM)
        signal.pause()  # until the comparison passes it on

    def fail(self):
        raise RuntimeError("broken on purpose")
'''


@pytest.fixture
def once(tiny_config, tmp_path, monkeypatch):
    """Let the experiment do something in its second epoch, once: ``once("stop_self")``."""
    (tmp_path / "tiny_hooks.py").write_text(HOOKS_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("COMPARISON", str(os.getpid()))

    def add(action):
        hook = dict(type="OnceHook", marker=str(tmp_path / "done_once"), action=action)
        extra = f"custom_imports = dict(imports=['tiny_hooks'])\ncustom_hooks = [{hook}]\n"
        tiny_config.write_text(tiny_config.read_text() + extra)

    return add
