"""Losses in DETR, RT-DETR v2 and D-FINE of transformers, which is not installed in CI."""

import copy
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn
from torchvision.ops import distance_box_iou_loss

from det_losses.adapters.transformers import training, with_losses
from det_losses.adapters.transformers.__main__ import _parser, main
from det_losses.adapters.transformers.comparison import TransformersTrainer
from det_losses.adapters.transformers.models import (
    SMALL_MODELS,
    build_model,
    import_transformers,
    small_config,
)
from det_losses.comparison.trainer import TrainingRun, build_trainer
from det_losses.errors import InputError, MissingFileError
from det_losses.evaluation.result_file import read_detections

CLASSES = ("cat", "dog", "bird")
HEIGHT, WIDTH = 64, 96
GUIDE = Path(__file__).parents[2] / "docs/transformers.md"


@pytest.fixture
def transformers():
    module = pytest.importorskip("transformers", reason="needs det-losses[transformers]")
    pytest.importorskip("accelerate", reason="needs det-losses[transformers]")
    return module


def labels(**changes):
    """Two images with large boxes, which all predictions of an untrained model overlap."""
    boxes = [[[0.5, 0.5, 0.9, 0.8], [0.55, 0.45, 0.7, 0.9]], [[0.5, 0.5, 0.8, 0.9]]]
    return [
        {
            "class_labels": torch.tensor(classes),
            "boxes": torch.tensor(own),
            "size": torch.tensor([HEIGHT, WIDTH]),
            **changes,
        }
        for classes, own in zip(([0, 2], [1]), boxes, strict=True)
    ]


def step(model, targets=None):
    """One step, with the same noise and dropout each time: the losses and the gradient."""
    images = torch.randn(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    model.zero_grad()
    output = model(images, labels=labels() if targets is None else targets)
    output.loss.backward()
    gradient = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    losses = {name: value.detach().double() for name, value in output.loss_dict.items()}
    return {"loss": output.loss.detach().double(), **losses}, torch.cat(gradient), output


def assert_equal_steps(one, other):
    assert one[0].keys() == other[0].keys()
    for name, value in one[0].items():
        torch.testing.assert_close(other[0][name], value, rtol=1e-6, atol=1e-7)
    assert (one[1] - other[1]).norm() <= 1e-6 * one[1].norm()


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_the_default_losses_are_those_of_transformers(transformers, name):
    """Also in other layers of the decoder, in the encoder's proposals and in denoising groups."""
    model = build_model(name, CLASSES, seed=0).train()
    own = step(model)
    assert_equal_steps(own, step(with_losses(model)))
    parts = {key.rstrip("_0123456789") for key in own[0]}
    if name == "detr_small":
        assert "loss_giou_0" in own[0]
    else:
        assert {"loss_giou", "loss_giou_aux", "loss_giou_dn"} <= parts


@pytest.mark.parametrize(
    ("name", "loss_cls"),
    [
        ("detr_small", "CrossEntropyLoss"),
        # theirs detaches the focusing factor
        ("rt_detr_v2_small", "VarifocalLoss(detach_focusing=True)"),
        ("d_fine_small", "VarifocalLoss(detach_focusing=True)"),
    ],
)
def test_our_loss_of_the_same_equation_is_equal_in_the_classification_slot(
    transformers, name, loss_cls
):
    model = build_model(name, CLASSES, seed=0).train()
    own, ours = step(model), step(with_losses(model, loss_cls=loss_cls))
    if name == "d_fine_small":
        # A positive of IoU 0 has no loss in theirs and counts as a negative in ours. The first
        # predictions are such; the denoising queries overlap their ground truth.
        own, ours = ({k: v for k, v in each[0].items() if "_dn_" in k} for each in (own, ours))
        torch.testing.assert_close(ours, own, rtol=1e-6, atol=1e-7)
    else:
        assert_equal_steps(own, ours)


@pytest.mark.parametrize(
    ("name", "loss_cls"),
    [
        ("detr_small", "FocalLoss(use_sigmoid=False)"),
        ("rt_detr_v2_small", "QualityFocalLoss"),
        ("d_fine_small", "FocalLoss"),
    ],
)
def test_another_classification_loss_changes_only_its_own_terms(transformers, name, loss_cls):
    model = build_model(name, CLASSES, seed=0).train()
    before, after = step(model)[0], step(with_losses(model, loss_cls=loss_cls))[0]
    changed = {key for key in before if not torch.allclose(before[key], after[key], rtol=1e-5)}
    classification = {key for key in before if key.startswith(("loss_ce", "loss_vfl"))}
    assert changed == {"loss", *classification}


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_a_loss_on_decoded_boxes_gets_pixels(transformers, name):
    """DIoU, which depends on the aspect ratio of the pixels, by torchvision on pixels."""
    model = with_losses(build_model(name, CLASSES, seed=0), loss_iou="DIoULoss").eval()
    criterion = model.loss_function.function.__globals__[model.loss_function.criterion]
    losses, _, output = step(model)
    if name == "detr_small":
        config = model.config
        matcher = model.loss_function.function.__globals__["HungarianMatcher"](
            config.class_cost, config.bbox_cost, config.giou_cost
        )
        weight = 1.0  # DETR's dict has the losses without their coefficients
    else:
        matcher, weight = criterion(model.config).matcher, model.config.weight_loss_giou
    indices = matcher({"logits": output.logits, "pred_boxes": output.pred_boxes}, labels())
    scale = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    expected = 0.0
    for image, (query, own) in enumerate(indices):
        pairs = output.pred_boxes[image, query], labels()[image]["boxes"][own]
        corners = [
            torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], dim=1) for b in pairs
        ]
        expected += distance_box_iou_loss(corners[0] * scale, corners[1] * scale).sum().item()
    assert losses["loss_giou"].item() == pytest.approx(weight * expected / 3, rel=1e-5)


def test_the_size_of_the_image_is_given_by_labels_or_by_hand(transformers):
    model = build_model("detr_small", CLASSES, seed=0).eval()
    # MPDIoU has the size of the image as an input too
    losses = dict(loss_iou="MPDIoULoss", loss_bbox="NormalizedL1Loss")
    expected = step(with_losses(model, **losses))[0]["loss"]
    without = [{k: v for k, v in target.items() if k != "size"} for target in labels()]
    with pytest.raises(InputError, match="image_size=\\(width, height\\)"):
        step(model, without)
    with_losses(model, **losses, image_size=(WIDTH, HEIGHT))
    assert step(model, without)[0]["loss"] == expected
    # the labels' own size is the one that counts
    with_losses(model, **losses, image_size=(10, 10))
    assert step(model)[0]["loss"] == expected


def test_loss_weight_multiplies_the_coefficient_of_the_config(transformers):
    """In DETR: 5 L1 + 2 GIoU + cross-entropy."""
    model = build_model("detr_small", CLASSES, seed=0).eval()
    model.config.auxiliary_loss = False
    own = step(model)[0]
    with_losses(model, loss_bbox="L1Loss(loss_weight=3)", loss_iou="GIoULoss(loss_weight=0)")
    torch.testing.assert_close(step(model)[0]["loss"], 15 * own["loss_bbox"] + own["loss_ce"])


def test_wrappers_and_sums_over_both_spaces_work(transformers):
    model = build_model("d_fine_small", CLASSES, seed=0).train()
    with_losses(
        model,
        loss_bbox="SumLoss(losses=[GIoULoss, L1Loss])",
        loss_iou="InnerIoU(CIoULoss, ratio=0.7)",
        loss_cls="VarifocalLoss",
    )
    losses, gradient, _ = step(model)
    assert all(value.isfinite() for value in losses.values())
    assert gradient.isfinite().all() and gradient.norm() > 0


def number_of_boxes(count):
    """Two images: one with ``count`` boxes, one without any."""
    generator = torch.Generator().manual_seed(0)
    boxes = [0.2 + 0.6 * torch.rand(n, 4, generator=generator) for n in (count, 0)]
    return [
        {"class_labels": torch.arange(len(own)) % 3, "boxes": own, "size": size}
        for own, size in zip(boxes, torch.tensor([[HEIGHT, WIDTH]] * 2), strict=True)
    ]


@pytest.mark.parametrize("name", SMALL_MODELS)
@pytest.mark.parametrize("count", [0, 1, 40])
def test_images_without_boxes_and_with_more_boxes_than_queries(transformers, name, count):
    """40 boxes, 30 queries: losses are divided by the boxes, not by the matched queries."""
    model = build_model(name, CLASSES, seed=0).train()
    targets = number_of_boxes(count)
    own = step(model, targets)
    assert_equal_steps(own, step(with_losses(model), targets))


def test_the_state_of_a_loss_belongs_to_the_model(transformers):
    """WIoU keeps a running mean: it is copied, saved and frozen in evaluation with the model."""
    model = with_losses(build_model("detr_small", CLASSES, seed=0), loss_iou="WIoUv3Loss").train()
    copied = copy.deepcopy(model)
    saved = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("_loss_function")}
    assert saved
    step(model)
    changed = {k for k, v in saved.items() if not torch.equal(model.state_dict()[k], v)}
    assert changed
    assert all(torch.equal(copied.state_dict()[k], v) for k, v in saved.items())
    before = step(copied)[0]  # the copy's own state
    assert before["loss_giou"].isfinite()
    state = {k: model.state_dict()[k].clone() for k in saved}
    step(model.eval())
    assert all(torch.equal(model.state_dict()[k], v) for k, v in state.items())


def test_losses_can_be_replaced_again(transformers):
    model = build_model("detr_small", CLASSES, seed=0).train()
    own = step(model)
    with_losses(model, loss_iou="CIoULoss")
    assert step(model)[0]["loss_giou"] != own[0]["loss_giou"]
    assert_equal_steps(own, step(with_losses(model)))


@pytest.mark.parametrize(
    ("name", "losses", "message"),
    [
        ("detr_small", dict(loss_cls="FocalLoss"), "loss_cls scores by softmax, and FocalLoss"),
        ("rt_detr_v2_small", dict(loss_cls="CrossEntropyLoss"), "scores by sigmoid"),
        ("d_fine_small", dict(loss_iou="FocalLoss"), "loss_iou takes a box loss"),
        ("d_fine_small", dict(loss_iou=nn.L1Loss()), "not a loss of this registry"),
    ],
)
def test_a_loss_that_does_not_fit(transformers, name, losses, message):
    with pytest.raises(InputError, match=message):
        with_losses(build_model(name, CLASSES, seed=0), **losses)


def test_another_model_is_refused():
    with pytest.raises(InputError, match=r"^Linear: losses can be replaced in DETR, RT-DETR"):
        with_losses(nn.Linear(1, 1))


@pytest.mark.parametrize("package", ["transformers", "accelerate"])
def test_a_missing_package_is_one_error(package, monkeypatch):
    if package == "accelerate":
        pytest.importorskip("transformers", reason="needs det-losses[transformers]")
    monkeypatch.setitem(sys.modules, "accelerate", sys.modules.get("accelerate", object()))
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"needs {package}: pip install 'det-losses\[transformers\]'"
    trainer = TransformersTrainer("detr_small")
    assert trainer.description == "detr_small (transformers)"  # without the package
    for start in (import_transformers, lambda: trainer.check(None)):
        with pytest.raises(InputError, match=message):
            start()


# Training


@pytest.fixture
def two_images(tiny_coco):
    """The data of a training on the first two images of ``tiny_coco``: two classes, gaps in ids."""

    def first_two(coco):
        coco["images"] = coco["images"][:2]
        ids = {image["id"] for image in coco["images"]}
        coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] in ids]

    ann_file, image_dir = tiny_coco("two", change=first_two)
    return dict(train_ann=ann_file, train_images=image_dir, val_ann=ann_file, val_images=image_dir)


def short(data, work_dir, **changes):
    settings = dict(image_size=64, epochs=2, batch_size=1, learning_rate=1e-3)
    return training.train("rt_detr_v2_small", work_dir=work_dir, **data, **(settings | changes))


def test_a_training_leaves_detections_with_the_ids_of_the_json(transformers, two_images, tmp_path):
    file = short(two_images, tmp_path / "run", val_interval=1, loss_iou="EIoULoss", epochs=1)
    assert file == tmp_path / "run" / "detections.json"
    found = read_detections(file)
    assert set(found[:, 0]) == {11, 5} and set(found[:, 6]) <= {3, 7, 18}
    assert len(found) == 2 * 30  # one for each query
    assert np.array_equal(read_detections(tmp_path / "run" / "detections_2.json"), found)
    # the model that is left detects the same
    model = transformers.AutoModelForObjectDetection.from_pretrained(tmp_path / "run" / "model")
    assert model.config.id2label == {0: "cat", 1: "dog", 2: "bird"}
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "run" / "model")
    data = training.CocoDataset(two_images["val_ann"], two_images["val_images"])
    assert np.allclose(training.detect(model, processor, data, 1), found, atol=1e-3)


def test_an_interrupted_training_continues(transformers, two_images, tmp_path, monkeypatch):
    whole = short(two_images, tmp_path / "whole", val_interval=2).read_text()

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "write_detections", stop)
        with pytest.raises(KeyboardInterrupt):
            short(two_images, tmp_path / "run", val_interval=2)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-2"]
    assert short(two_images, tmp_path / "run", val_interval=2).read_text() == whole
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_loss_that_is_not_called_is_an_error(transformers, two_images, tmp_path, monkeypatch):
    """As it would be if another version of transformers computed its losses elsewhere."""
    monkeypatch.setattr(
        "det_losses.adapters.transformers.losses.SlotLosses.forward",
        lambda self, *args, **kwargs: self.function(*args, **kwargs),
    )
    with pytest.raises(InputError, match=r"^loss_bbox, loss_iou was not called in the first step"):
        short(two_images, tmp_path)


def test_a_folder_as_a_model(transformers, two_images, tmp_path):
    """With weights it starts from them, with a config.json only from the seed."""
    folder = tmp_path / "trained"
    build_model("detr_small", CLASSES, seed=7).save_pretrained(folder)
    weights = {seed: dict(build_model(folder, CLASSES, seed).named_parameters()) for seed in (0, 1)}
    name = "class_labels_classifier.weight"
    assert torch.equal(weights[0][name], weights[1][name])
    fewer = build_model(folder, CLASSES[:2], 0)  # another head, the rest from the file
    assert fewer.class_labels_classifier.out_features == 3
    body = "model.query_position_embeddings.weight"
    assert torch.equal(dict(fewer.named_parameters())[body], weights[0][body])
    (folder / "model.safetensors").unlink()
    assert not torch.equal(
        build_model(folder, CLASSES, 0).state_dict()[name],
        build_model(folder, CLASSES, 1).state_dict()[name],
    )
    (folder / "config.json").unlink()
    with pytest.raises(MissingFileError, match=r"no config\.json"):
        build_model(folder, CLASSES, 0)


def test_an_unknown_model_or_argument(transformers, two_images, tmp_path):
    with pytest.raises(InputError, match="Did you mean 'rt_detr_v2_small'"):
        small_config("rt_detr_v2_smal")
    with pytest.raises(InputError, match=r"no slot 'loss_box'"):
        TransformersTrainer("detr_small", losses={"loss_box": "L1Loss"})
    with pytest.raises(InputError, match=r"arguments of the Trainer: .*nonsense"):
        short(two_images, tmp_path, arguments={"nonsense": 1})


def run_of(data, work_dir, **losses):
    paths = {key: Path(value) for key, value in data.items()}
    facts = dict(label="x", losses=losses, seed=3, work_dir=work_dir, config=Config({}))
    return TrainingRun(**facts, **paths)


def test_the_command_of_a_comparison_trains(transformers, two_images, tmp_path, capsys):
    trainer = build_trainer(
        Config(
            dict(
                trainer=dict(
                    type="det_losses.adapters.transformers.comparison:TransformersTrainer",
                    model="detr_small",
                    losses=dict(loss_cls="FocalLoss(use_sigmoid=False)", loss_iou="GIoULoss"),
                    image_size=64,
                    epochs=1,
                    arguments=dict(warmup_steps=5),
                )
            )
        )
    )
    run = run_of(two_images, tmp_path / "run dir", loss_iou="InnerIoU(CIoULoss, ratio=0.7)")
    trainer.check(run)
    with pytest.raises(InputError, match="loss_cls scores by softmax, and VarifocalLoss"):
        trainer.check(run_of(two_images, tmp_path, loss_cls="VarifocalLoss"))
    command = trainer.command(run)
    assert command[:3] == [sys.executable, "-m", "det_losses.adapters.transformers"]
    given = vars(_parser().parse_args(command[3:]))
    assert given["loss_iou"] == "InnerIoU(CIoULoss, ratio=0.7)"
    assert given["loss_cls"] == "FocalLoss(use_sigmoid=False)"
    assert (given["seed"], given["arguments"]) == (3, {"warmup_steps": 5})
    assert main(command[3:]) == 0
    assert f"detections: {trainer.detections(run)}" in capsys.readouterr().out
    assert read_detections(trainer.detections(run)).shape == (60, 7)  # 30 queries


def test_errors_of_the_command_are_one_line(transformers, two_images, tmp_path, capsys):
    words = [f"--{key.replace('_', '-')}={value}" for key, value in two_images.items()]
    words += ["--model=detr_small", f"--work-dir={tmp_path}", "--loss-iou=GIuLoss"]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "Did you mean 'GIoULoss'?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--arguments=[1]"])
    assert "expected a JSON object, got [1]" in capsys.readouterr().err


def test_the_code_of_the_guide_runs(transformers, two_images, tmp_path, monkeypatch):
    """docs/transformers.md, in a folder with the files that it names."""
    data = Path(two_images["train_ann"]).read_text()
    (tmp_path / "train.json").write_text(data)
    (tmp_path / "val.json").write_text(data)
    (tmp_path / "images").symlink_to(two_images["train_images"])
    monkeypatch.chdir(tmp_path)
    page = GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/transformers.md", "exec"), names)
    assert len(blocks) == 2 and names["loss"] > 0
    assert len(read_detections("work_dirs/rt_detr_ciou/detections.json"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rt_detr_v2_small", "d_fine_small"])
def test_a_small_model_overfits_two_images(transformers, two_images, tmp_path, name):
    file = training.train(
        name,
        work_dir=tmp_path / "run",
        **two_images,
        image_size=96,
        epochs=250,
        batch_size=2,
        learning_rate=2e-3,
        loss_iou="CIoULoss",
        transforms=(),
        arguments={"save_strategy": "no", "logging_strategy": "no"},
    )
    truth = json.loads(Path(two_images["val_ann"]).read_text())["annotations"]
    found = read_detections(file)
    for each in truth:  # the best detection of the class has IoU above 0.7
        own = found[(found[:, 0] == each["image_id"]) & (found[:, 6] == each["category_id"])]
        best = own[own[:, 5].argmax()]
        x, y, w, h = each["bbox"]
        overlap = max(0, min(x + w, best[1] + best[3]) - max(x, best[1]))
        overlap *= max(0, min(y + h, best[2] + best[4]) - max(y, best[2]))
        assert overlap / (w * h + best[3] * best[4] - overlap) > 0.7, each
        assert best[5] > 0.5
