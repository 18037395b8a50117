"""mmdetection without mmcv's compiled operators, which take half an hour to compile.

``make mmdetection`` installs it into an environment of its own. pip builds onedl-mmcv where torch
is not installed, and then leaves out the operators. ``mmcv.ops`` loads them from ``mmcv._ext``;
here this module hands torchvision's operators to it. All others raise NotImplementedError.
"""

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

import torch
import torchvision


class Operators(types.ModuleType):
    """``mmcv._ext`` with the operators that RetinaNet and Faster R-CNN use."""

    @staticmethod
    def nms(boxes, scores, iou_threshold, offset):
        assert offset == 0
        return torchvision.ops.nms(boxes, scores, iou_threshold)

    @staticmethod
    def roi_align_forward(features, rois, output, argmax_y, argmax_x, **kwargs):
        output.copy_(torch.ops.torchvision.roi_align(features, rois, *_roi_arguments(**kwargs)))

    @staticmethod
    def roi_align_backward(grad_output, rois, argmax_y, argmax_x, grad_input, **kwargs):
        scale, height, width, sampling_ratio, aligned = _roi_arguments(**kwargs)
        arguments = (scale, height, width, *grad_input.shape, sampling_ratio, aligned)
        gradient = torch.ops.torchvision._roi_align_backward(grad_output, rois, *arguments)
        grad_input.copy_(gradient)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args, **kwargs):
            raise NotImplementedError(f"mmcv._ext.{name}")

        return missing


def _roi_arguments(
    aligned_height, aligned_width, spatial_scale, sampling_ratio, pool_mode, aligned
):
    assert pool_mode == 1  # average
    return spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned


def install_operators():
    """Make ``mmcv.ops`` importable, unless mmcv was compiled with its operators."""
    if importlib.util.find_spec("mmcv._ext") is None:
        module = Operators("mmcv._ext")
        module.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)
        sys.modules["mmcv._ext"] = module


def config_of(name):
    """Return the model of one of mmdetection's own configs, as in the file."""
    import mmdet
    from mmengine.config import Config

    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    return Config.fromfile(folder / name).model
