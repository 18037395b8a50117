"""The names of the registry in mmdetection's own code, with its unchanged configs."""

import copy
import importlib.util
import inspect

import pytest
import torch
from mmdetection_env import config_of, install_operators
from torch import nn
from torchvision.models.detection.faster_rcnn import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.retinanet import RetinaNetHead

from det_losses.losses import build_loss
from det_losses.models import SmallResNetFPN
from det_losses.models.faster_rcnn import RPN, BoxRoIHeads
from det_losses.models.retinanet import Head

missing = [name for name in ("mmcv", "mmdet") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"no {' and '.join(missing)}: make mmdetection"),
    pytest.mark.filterwarnings("ignore"),  # of mmdetection and its requirements
]
RETINANET = "_base_/models/retinanet_r50_fpn.py"
FASTER_RCNN = "_base_/models/faster-rcnn_r50_fpn.py"
INNER = dict(type="det_losses.InnerIoU", ratio=0.75, loss=dict(type="det_losses.CIoULoss"))
BOX_LOSSES = [
    "det_losses.L1Loss",
    "det_losses.SmoothL1Loss",
    "det_losses.BalancedL1Loss",
    "det_losses.GIoULoss",
    "det_losses.EIoULoss",
    "det_losses.SIoULoss",
    "det_losses.WIoUv1Loss",
    "inner",
]


@pytest.fixture(scope="module", autouse=True)
def mmdetection():
    install_operators()
    import mmdet.models  # noqa: F401
    from mmengine.registry import DefaultScope

    DefaultScope.get_instance("mmdetection", scope_name="mmdet")


def built(config):
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    return MODELS.build(config)


def model_of(name):
    """The config of a whole detector; only the download of its backbone is left out."""
    config = config_of(name)
    config.backbone.init_cfg = None
    return config


def renamed(loss):
    return {**loss, "type": f"det_losses.{loss['type']}"}


def box_loss(name):
    return INNER if name == "inner" else dict(type=name, loss_weight=2.0)


def samples():
    """Two images of 128 x 160 with three boxes and one box, as mmdetection's data pipeline."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    boxes = [[[8.0, 10, 70, 60], [60, 30, 150, 120], [90, 70, 130, 126]], [[20.0, 20, 110, 90]]]
    labels = [[3, 17, 0], [79]]
    found = []
    for box, label in zip(boxes, labels, strict=True):
        sample = DetDataSample(
            metainfo=dict(img_shape=(128, 160), pad_shape=(128, 160), ori_shape=(128, 160))
        )
        sample.gt_instances = InstanceData(bboxes=torch.tensor(box), labels=torch.tensor(label))
        found.append(sample)
    return found


def images():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, 128, 160), generator=generator).byte() for _ in "ab"]


def train(model, steps):
    from mmengine.optim import OptimWrapper

    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), 1e-3))
    data = {"inputs": images(), "data_samples": samples()}
    found = []
    for step in range(steps):
        torch.manual_seed(step)
        logged = model.train().train_step(data, optimizer)
        found.append({name: value.item() for name, value in logged.items() if "loss" in name})
    return found


@pytest.mark.parametrize("box", [None, "det_losses.EIoULoss", "det_losses.WIoUv3Loss", "inner"])
def test_retinanet_trains(box):
    """Without ``box``, the config's own dicts with the prefix train as mmdetection's losses."""
    config = model_of(RETINANET)
    own = copy.deepcopy(config)
    config.bbox_head.loss_cls = renamed(config.bbox_head.loss_cls)
    config.bbox_head.loss_bbox = renamed(config.bbox_head.loss_bbox)
    if box is not None:
        config.bbox_head.update(reg_decoded_bbox=True, loss_bbox=box_loss(box))
    losses = train(built(config), 3)
    assert losses[-1]["loss_bbox"] != losses[0]["loss_bbox"] > 0
    if box is None:
        for got, expected in zip(losses, train(built(own), 3), strict=True):
            assert got == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("box", [None, "det_losses.GIoULoss"])
def test_faster_rcnn_trains(box):
    config = model_of(FASTER_RCNN)
    own = copy.deepcopy(config)
    for head in (config.rpn_head, config.roi_head.bbox_head):
        head.loss_cls, head.loss_bbox = renamed(head.loss_cls), renamed(head.loss_bbox)
        if box is not None:
            head.update(reg_decoded_bbox=True, loss_bbox=box_loss(box))
    losses = train(built(config), 2)
    assert all(losses[0][name] > 0 for name in ("loss_rpn_cls", "loss_rpn_bbox", "loss_cls"))
    assert losses[0]["loss_bbox"] > 0
    if box is None:
        for got, expected in zip(losses, train(built(own), 2), strict=True):
            assert got == pytest.approx(expected, rel=1e-4)


def head_of(config, **given):
    """A head of a config; its other losses are named with the prefix, and have their own dicts."""
    given = {slot: renamed(config[slot]) for slot in ("loss_cls", "loss_bbox")} | given
    decoded = build_loss(given["loss_bbox"]).space == "decoded"
    return built({**config, **given, "reg_decoded_bbox": decoded})


def losses_of(head, **slots):
    """The losses of a head of mmdetection by slot of ours."""
    return nn.ModuleDict({slot: getattr(head, name) for slot, name in slots.items()})


def dense_outputs(head, channels):
    """Random outputs of a dense head for two images of 128 x 160, by level."""
    generator = torch.Generator().manual_seed(2)
    scores, deltas = [], []
    for stride, _ in head.prior_generator.strides:
        size = (-(-128 // stride), -(-160 // stride))
        for outputs, count, scale in ((scores, channels, 1.0), (deltas, 4, 0.3)):
            shape = (2, head.num_base_priors * count, *size)
            outputs.append(scale * torch.randn(shape, generator=generator))
            outputs[-1].requires_grad_()
    return scores, deltas


def by_anchor(levels, channels):
    """Outputs of all levels as torchvision's heads return them, ``[B, A, C]``."""
    rows = [level.permute(0, 2, 3, 1).reshape(len(level), -1, channels) for level in levels]
    return torch.cat(rows, dim=1)


def dense_losses(head, scores, deltas, instances):
    """mmdetection's losses, and its anchors and the box of each: -1 none, -2 not sampled."""
    metas = [each.metainfo for each in samples()]
    torch.manual_seed(3)  # the sampler of the RPN draws
    by_level = head.loss_by_feat(scores, deltas, instances, metas)
    losses = {name.removeprefix("loss_"): sum(values) for name, values in by_level.items()}
    sizes = [level.shape[-2:] for level in scores]
    anchors, valid = head.get_anchors(sizes, metas, device="cpu")
    torch.manual_seed(3)
    _, weights, *_, results = head.get_targets(
        anchors, valid, instances, metas, return_sampling_results=True
    )
    matched = torch.where(torch.cat(weights, dim=1) > 0, -1, -2)
    for row, result in zip(matched, results, strict=True):
        row[result.pos_inds] = result.pos_assigned_gt_inds
    assert (matched >= 0).sum() > 5 and (matched == -2).sum() > 5
    return losses, [torch.cat(each) for each in anchors], list(matched)


def assert_equal(theirs, ours, inputs):
    """Equal losses and gradients. mmdetection adds the smallest float to its divisors."""
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=2e-6, atol=0)
        for each in zip(
            *(
                torch.autograd.grad(v, inputs, retain_graph=True, allow_unused=True)
                for v in (ours[name], value)
            ),
            strict=True,
        ):
            if each[0] is not None or each[1] is not None:
                torch.testing.assert_close(*each, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("box", BOX_LOSSES, ids=lambda name: name.removeprefix("det_losses."))
def test_retinanet_equals_our_head_on_the_same_predictions(box):
    config = config_of(RETINANET)
    loss_cls = dict(
        type="det_losses.FocalLoss", use_sigmoid=True, gamma=1.5, alpha=0.3, loss_weight=0.5
    )
    config.bbox_head.update(train_cfg=config.train_cfg, test_cfg=None)
    head = head_of(config.bbox_head, loss_cls=loss_cls, loss_bbox=box_loss(box))
    scores, deltas = dense_outputs(head, 80)
    instances = [each.gt_instances for each in samples()]
    theirs, anchors, matched = dense_losses(head, scores, deltas, instances)
    losses = losses_of(head, loss_cls="loss_cls", loss_bbox="loss_bbox")
    ours = Head(RetinaNetHead(4, head.num_base_priors, 80), losses, normalizer="batch")
    found = ours.compute_loss(
        [dict(boxes=each.bboxes, labels=each.labels) for each in instances],
        {"cls_logits": by_anchor(scores, 80), "bbox_regression": by_anchor(deltas, 4)},
        anchors,
        matched,
    )
    found = {name.removeprefix("loss_"): value for name, value in found.items()}
    assert_equal(theirs, found, scores + deltas)


def our_faster_rcnn():
    body = SmallResNetFPN((8, 8, 16, 16, 16, 16), out_channels=8, extra_levels="pool")
    return TorchvisionFasterRCNN(body, 81)


@pytest.mark.parametrize("box", BOX_LOSSES, ids=lambda name: name.removeprefix("det_losses."))
def test_rpn_equals_ours_on_the_same_predictions(box):
    config = config_of(FASTER_RCNN)
    config.rpn_head.update(num_classes=1, train_cfg=config.train_cfg.rpn, test_cfg=None)
    head = head_of(config.rpn_head, loss_bbox=box_loss(box))
    scores, deltas = dense_outputs(head, 1)
    instances = [each.gt_instances for each in samples()]
    for each in instances:
        each.labels = torch.zeros_like(each.labels)  # as mmdetection's TwoStageDetector
    theirs, anchors, matched = dense_losses(head, scores, deltas, instances)
    losses = losses_of(head, loss_rpn_cls="loss_cls", loss_rpn_bbox="loss_bbox")
    rpn = RPN(our_faster_rcnn().rpn, losses)
    rpn.fg_bg_sampler = lambda _: ([row >= 0 for row in matched], [row == -1 for row in matched])
    rpn.image_sizes = [(128, 160)] * 2
    pairs = [
        torch.cat([each.bboxes[row.clamp(min=0)], anchor], dim=1)
        for each, row, anchor in zip(instances, matched, anchors, strict=True)
    ]
    cls, bbox = rpn.compute_loss(
        by_anchor(scores, 1).flatten(0, 1),
        by_anchor(deltas, 4).flatten(0, 1),
        [(row >= 0).float() for row in matched],
        pairs,
    )
    names = {"rpn_cls": "cls", "rpn_bbox": "bbox"}
    theirs = {names.get(name, name): value for name, value in theirs.items()}
    assert_equal(theirs, {"cls": cls, "bbox": bbox}, scores + deltas)


def sampled(config):
    """mmdetection's samples of random proposals."""
    from mmdet.registry import TASK_UTILS
    from mmengine.structures import InstanceData

    assigner = TASK_UTILS.build(config.train_cfg.rcnn.assigner)
    sampler = TASK_UTILS.build(config.train_cfg.rcnn.sampler)
    generator = torch.Generator().manual_seed(4)
    found = []
    for each in samples():
        near = each.gt_instances.bboxes.repeat(8, 1)
        corners = near + 6 * torch.randn(near.shape, generator=generator)
        far = torch.rand(40, 4, generator=generator) * 60
        far[:, 2:] += far[:, :2] + 4
        proposals = InstanceData(priors=torch.cat([corners, far]))
        assigned = assigner.assign(proposals, each.gt_instances)
        found.append(sampler.sample(assigned, proposals, each.gt_instances))
    return found


@pytest.mark.parametrize("box", BOX_LOSSES, ids=lambda name: name.removeprefix("det_losses."))
def test_roi_head_equals_ours_on_the_same_predictions(box):
    config = config_of(FASTER_RCNN)
    head = head_of(config.roi_head.bbox_head, loss_bbox=box_loss(box))
    results = sampled(config)
    proposals = [each.priors for each in results]
    counts = [len(each) for each in proposals]
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(sum(counts), 81, generator=generator).requires_grad_()
    deltas = torch.randn(sum(counts), 320, generator=generator).requires_grad_()
    labels, *targets = head.get_targets(results, config.train_cfg.rcnn)
    index = torch.arange(2.0).repeat_interleave(torch.tensor(counts))
    rois = torch.cat([index[:, None], torch.cat(proposals)], dim=1)
    theirs = head.loss(logits, deltas, rois, labels, *targets)
    theirs = {name: value for name, value in theirs.items() if "loss" in name}
    assert theirs.keys() == {"loss_cls", "loss_bbox"} and (labels < 80).sum() > 5

    built_heads = our_faster_rcnn().roi_heads
    ours = BoxRoIHeads(built_heads, losses_of(head, loss_cls="loss_cls", loss_bbox="loss_bbox"))
    boxes = [torch.cat([each.pos_gt_bboxes, torch.ones(each.num_neg, 4)]) for each in results]
    pairs = [torch.cat(each, dim=1) for each in zip(boxes, proposals, strict=True)]
    found = ours.compute_loss(
        logits.roll(1, dims=1),  # the background is the last channel there, the first here
        torch.cat([deltas.new_zeros(len(deltas), 4), deltas], dim=1),
        list(torch.where(labels < 80, labels + 1, 0).split(counts)),
        pairs,
        [(128, 160)] * 2,
    )
    assert_equal(theirs, found, [logits, deltas])


def box_arguments(decoded):
    generator = torch.Generator().manual_seed(6)
    pred, target = 20 * torch.rand(2, 9, 4, generator=generator)
    if decoded:
        for box in (pred, target):
            box[:, 2:] += box[:, :2] + 5
    return pred, target, torch.rand(9, generator=generator)


def class_arguments(softmax):
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(9, 5 + softmax, generator=generator)
    return logits, torch.arange(9) % 6, torch.rand(9, generator=generator)


def side_arguments():
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(9, 8, generator=generator)
    return logits, 7 * torch.rand(9, generator=generator), torch.rand(9, generator=generator)


SHARED = {
    "L1Loss": lambda: box_arguments(False),
    "MSELoss": lambda: box_arguments(False),
    "SmoothL1Loss": lambda: box_arguments(False),
    "BalancedL1Loss": lambda: box_arguments(False),
    "IoULoss": lambda: box_arguments(True),
    "GIoULoss": lambda: box_arguments(True),
    "DIoULoss": lambda: box_arguments(True),
    "CIoULoss": lambda: box_arguments(True),
    "FocalLoss": lambda: class_arguments(False),
    "CrossEntropyLoss": lambda: class_arguments(True),
    "DistributionFocalLoss": side_arguments,
}


@pytest.mark.parametrize("name", SHARED)
def test_a_dict_of_mmdetection_means_the_same(name):
    """All arguments of its constructor with their defaults, and the arguments of a call."""
    from mmdet.registry import MODELS

    theirs = MODELS.build(dict(type=name, loss_weight=1.5))
    parameters = inspect.signature(type(theirs)).parameters.values()
    dictionary = {each.name: each.default for each in parameters} | {"loss_weight": 1.5}
    if name == "CIoULoss":
        dictionary["alpha_gate"] = 0.5  # mmdetection has the formula of the journal version
    ours = MODELS.build(dict(type=f"det_losses.{name}", **dictionary))
    pred, target, weight = SHARED[name]()
    if ours.space == "delta":
        weight = weight[:, None].expand(-1, 4)
    calls = [
        dict(avg_factor=7.0),
        dict(),
        dict(reduction_override="sum"),
        dict(reduction_override="none"),
    ]
    for arguments in calls:
        values = [loss(pred, target, weight, **arguments) for loss in (theirs, ours)]
        torch.testing.assert_close(values[1], values[0], rtol=2e-5, atol=1e-6)
    with pytest.raises(ValueError, match="avg_factor"):
        ours(pred, target, weight, avg_factor=7.0, reduction_override="sum")
