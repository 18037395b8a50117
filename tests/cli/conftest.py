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
