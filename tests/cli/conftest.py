"""A RetinaNet so small that a run takes seconds, on the six images of ``tiny_coco``."""

import pytest

from det_losses.paths import configs_root

CONFIG = """
_base_ = [{runtime!r}]
model = dict(
    type="RetinaNet",
    backbone=dict(type="SmallResNetFPN", widths=(4, 8, 8, 8), out_channels=8),
    num_convs=1,
    anchors=dict(sizes=((16,), (32,), (64,)), aspect_ratios=(1.0,)),
    min_size=64,
    max_size=64,
)
train_dataloader = dict(
    batch_size=3,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="detection_collate"),
    dataset=dict(type="CocoDataset", ann_file={ann_file!r}, image_dir={image_dir!r}),
)
val_dataloader = dict(
    batch_size=3,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="detection_collate"),
    dataset=dict(
        type="CocoDataset", ann_file={ann_file!r}, image_dir={image_dir!r}, test_mode=True
    ),
)
val_evaluator = dict(type="CocoMetric")
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg = dict()
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01))
randomness = dict(seed=0)
"""


@pytest.fixture
def tiny_config(tiny_coco, tmp_path):
    """The config file of that experiment."""
    ann_file, image_dir = tiny_coco()
    runtime = str(configs_root() / "_base_" / "runtime.py")
    file = tmp_path / "tiny_retinanet.py"
    file.write_text(CONFIG.format(runtime=runtime, ann_file=ann_file, image_dir=image_dir))
    return file


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

    def stop_parent(self):
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()  # until the parent passes it on

    def fail(self):
        raise RuntimeError("broken on purpose")
'''


@pytest.fixture
def once(tiny_config, tmp_path, monkeypatch):
    """Let the experiment do something in its second epoch, once: ``once("stop_self")``."""
    (tmp_path / "tiny_hooks.py").write_text(HOOKS_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def add(action):
        hook = dict(type="OnceHook", marker=str(tmp_path / "done_once"), action=action)
        extra = f"custom_imports = dict(imports=['tiny_hooks'])\ncustom_hooks = [{hook}]\n"
        tiny_config.write_text(tiny_config.read_text() + extra)

    return add
