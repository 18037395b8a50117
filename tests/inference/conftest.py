"""A checkpoint as a training writes it, of a small detector with random weights."""

import pytest
import torch
from mmengine.config import Config
from small_weights import random_weights

from det_losses.engine import config_text
from det_losses.registry import MODELS

MODEL = dict(
    type="RetinaNet",
    backbone=dict(type="SmallResNetFPN", widths=(4, 8, 8, 8), out_channels=8, extra_levels=None),
    num_classes=2,
    num_convs=1,
    anchors=dict(sizes=((16,), (32,)), aspect_ratios=(1.0,)),
    min_size=64,
    max_size=96,
)


@pytest.fixture
def checkpoint(tmp_path):
    """Factory: ``checkpoint(**entries of the model)`` -> path of the file."""

    def make(name="last.pth", *, content=None, dataset=None, cfg=None, **model):
        torch.manual_seed(0)
        settings = Config(dict(model={**MODEL, **model}, **(cfg or {})))
        settings.val_dataloader = dict(dataset=dataset or dict(type="CocoDataset"))
        state = random_weights(MODELS.build(settings.model)).state_dict()
        meta = dict(
            cfg=config_text(settings),
            dataset_meta=dict(classes=["cat", "dog"], category_ids=[3, 7]),
        )
        path = tmp_path / name
        torch.save(
            dict(meta=meta, state_dict=state) if content is None else content(meta, state), path
        )
        return path

    return make
