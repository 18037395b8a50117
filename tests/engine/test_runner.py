"""mmengine's messages in the units of this package."""

import copy
import logging

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.visualization import Visualizer as FigureVisualizer

from det_losses.engine import build_runner
from det_losses.engine.run import build_parts
from det_losses.engine.runner import Visualizer, best_in_points
from det_losses.errors import InputError

BEST = "The best checkpoint with {} is saved to best.pth."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (BEST.format("0.3932 AP at 3 epoch"), BEST.format("39.3 AP at 3 epoch")),
        (BEST.format("0.3932 AP/cat at 3 epoch"), BEST.format("39.3 AP/cat at 3 epoch")),
        (BEST.format("0.3932 loss at 3 epoch"), BEST.format("0.3932 loss at 3 epoch")),
        (ValueError("broken"), "broken"),
    ],
)
def test_the_best_checkpoint_has_its_ap_in_points(text, shown):
    record = logging.LogRecord("name", logging.INFO, "file.py", 1, text, None, None)
    assert best_in_points(record)
    assert record.getMessage() == shown


def test_no_dataset_is_built_again(toy_cfg):
    runner = build_runner(Config(toy_cfg()))
    build_parts(runner)
    datasets = [runner.train_dataloader.dataset, runner.val_dataloader.dataset]
    assert datasets == [dataset for _, dataset in runner.datasets]


def test_a_figure_is_created_by_the_first_drawing():
    image = np.full((12, 20, 3), 90, np.uint8)
    ours = Visualizer("lazy")
    assert not {"fig_save", "ax_save", "dpi"} & vars(ours).keys()
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        _ = ours.unknown
    theirs = FigureVisualizer("theirs", image)
    ours.set_image(image)
    for each in (ours, theirs):
        each.draw_bboxes(np.array([[2, 3, 15, 9]]))
    np.testing.assert_array_equal(ours.get_image(), theirs.get_image())
    np.testing.assert_array_equal(Visualizer("given", image).get_image()[0, 0], image[0, 0])


def test_the_config_compiles_the_backbone(toy_cfg):
    graphs = []

    def backend(graph, _inputs):  # counts what torch.compile passes to a compiler
        graphs.append(graph)
        return graph.forward

    cfg = toy_cfg(compile=dict(backend=backend))
    classes = cfg["model"]["num_classes"]
    backbone = dict(type="SmallResNetFPN", widths=(8, 8, 16, 16), out_channels=16)
    cfg["model"] = dict(
        type="FCOS", backbone=backbone, num_classes=classes, anchor_sizes=(8, 16, 32)
    )
    runner = build_runner(Config(cfg))
    runner.model.eval()
    names, images = list(runner.model.state_dict()), torch.rand(1, 3, 64, 64)
    backbone = runner.model.detector.backbone
    with torch.no_grad():
        expected = backbone(images)
        runner._maybe_compile("train_step")
        found = backbone(images)
    assert graphs and list(runner.model.state_dict()) == names
    for level, value in expected.items():
        torch.testing.assert_close(found[level], value)
    copy.deepcopy(runner.model)  # as EMAHook does


def test_compile_is_a_bool_or_arguments(toy_cfg):
    runner = build_runner(Config(toy_cfg(compile="inductor")))
    with pytest.raises(InputError, match=r"compile must be True, .*got 'inductor'"):
        runner._maybe_compile("train_step")
