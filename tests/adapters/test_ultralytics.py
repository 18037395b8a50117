"""Losses in ultralytics' criterion and trainer, its data layout, and the runs of a comparison."""

import copy
import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import nn

from det_losses.adapters.ultralytics import criterion, training
from det_losses.adapters.ultralytics.__main__ import _argument, _parser
from det_losses.adapters.ultralytics.__main__ import main as command_line
from det_losses.adapters.ultralytics.comparison import UltralyticsTrainer
from det_losses.adapters.ultralytics.criterion import BoxLosses, ClassLoss, use_losses
from det_losses.adapters.ultralytics.layout import write_layout
from det_losses.adapters.ultralytics.training import offline, train
from det_losses.comparison.trainer import TrainingRun
from det_losses.errors import InputError, InputTypeError, MissingFileError, UserError
from det_losses.evaluation.ground_truth import GroundTruth
from det_losses.evaluation.result_file import read_detections
from det_losses.losses import build_loss

INSTALLED = importlib.util.find_spec("ultralytics") is not None
needs_ultralytics = pytest.mark.skipif(
    not INSTALLED, reason="needs ultralytics: pip install 'det-losses[yolo]'"
)
# Those of ultralytics and of polars, which it imports.
pytestmark = pytest.mark.filterwarnings("ignore")

GUIDE = Path(__file__).parents[2] / "docs/yolo.md"
MODELS = ("yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml")


# The criterion


@pytest.fixture(scope="module")
def ultralytics_offline(tmp_path_factory):
    with offline(tmp_path_factory.mktemp("ultralytics")):
        yield


@pytest.fixture(scope="module")
def models(ultralytics_offline):
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    found = {}
    for name in MODELS:
        torch.manual_seed(0)
        found[name] = DetectionModel(name, nc=3, verbose=False)
        found[name].args = get_cfg()
    return found


@pytest.fixture(scope="module")
def outputs(models):
    """Outputs of each model and a batch: boxes of several sizes, and an image without boxes."""
    batch = {
        "img": torch.rand(3, 3, 96, 128, generator=torch.Generator().manual_seed(1)),
        "batch_idx": torch.tensor([0.0, 0, 1, 1]),
        "cls": torch.tensor([0.0, 1, 2, 0]),
        "bboxes": torch.tensor(
            [[0.3, 0.4, 0.4, 0.5], [0.7, 0.6, 0.3, 0.2], [0.5, 0.5, 0.8, 0.7], [0.2, 0.7, 0.3, 0.5]]
        ),
    }
    with torch.no_grad():
        return {name: model.train()(batch["img"]) for name, model in models.items()}, batch


def moved(value, dtype):
    """Return a copy in another precision, whose outputs for boxes and scores have gradients."""
    if isinstance(value, dict):
        return {
            key: moved(each, dtype).requires_grad_(key in ("boxes", "scores"))
            if isinstance(each, torch.Tensor)
            else moved(each, dtype)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [moved(each, dtype) for each in value]
    return value.detach().to(dtype, copy=True)


def evaluated(model, outputs, dtype, losses):
    """Return the items and the gradients of all outputs."""
    preds, batch = moved(outputs[0], dtype), {k: v.to(dtype) for k, v in outputs[1].items()}
    model = copy.deepcopy(model).to(dtype)
    if losses:
        use_losses(model, **losses)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # the criterion allocates its results by default
    try:
        total, items = model.loss(batch, preds)
    finally:
        torch.set_default_dtype(before)
    total.sum().backward()
    parts = [preds] if "boxes" in preds else [preds["one2many"], preds["one2one"]]
    gradients = torch.cat([part[k].grad.flatten() for part in parts for k in ("boxes", "scores")])
    return torch.stack(list(items.values())), gradients


@needs_ultralytics
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_ciou_bce_and_dfl_are_those_of_ultralytics(models, outputs, name, dtype):
    """Losses and gradients. In float64, only the terms eps = 1e-7 in denominators differ."""
    given = outputs[0][name], outputs[1]
    losses = {"loss_bbox": "CIoULoss", "loss_cls": "BinaryCrossEntropyLoss"}
    if name != "yolo26n.yaml":  # without distributions
        losses["loss_dfl"] = "DistributionFocalLoss"
    own, ours = (evaluated(models[name], given, dtype, each) for each in (None, losses))
    assert torch.count_nonzero(own[1]) > 100
    torch.testing.assert_close(ours[0], own[0], rtol=1e-6, atol=0)
    scale = own[1].abs().max().item()
    torch.testing.assert_close(ours[1], own[1], rtol=0, atol=1e-6 * scale)


@needs_ultralytics
@pytest.mark.parametrize("name", MODELS)
def test_another_box_loss_changes_nothing_else(models, outputs, name):
    """Assignment, class loss and DFL (or L1) are bitwise the same."""
    given = outputs[0][name], outputs[1]
    own = evaluated(models[name], given, torch.float32, None)[0]
    for loss in ("EIoULoss", "InnerIoU(CIoULoss, ratio=0.7)", "SumLoss(L1Loss, GIoULoss)"):
        ours, gradient = evaluated(models[name], given, torch.float32, {"loss_bbox": loss})
        assert torch.equal(ours[1:], own[1:]) and not torch.isclose(ours[0], own[0])
        assert gradient.isfinite().all()


def box_losses(loss):
    """Two anchor points at (2, 2) strides of 8 and (1.5, 1.5) of 16; both are positives."""

    class Original(nn.Module):
        def forward(self, *args):
            return torch.tensor(9.0), torch.tensor(2.0)

    pred = torch.tensor([[[1.0, 1, 4, 3], [0, 0, 0, 0], [1, 1, 2, 3]]])
    target = torch.tensor([[[1.0, 0, 3, 3], [0, 0, 0, 0], [0, 1, 2, 2]]])
    return BoxLosses(Original(), build_loss(loss))(
        None,
        pred,
        torch.tensor([[2.0, 2], [3, 2], [1.5, 1.5]]),
        target,
        torch.tensor([[[0.25, 0.25], [0, 0], [0, 1.0]]]),
        torch.tensor(4.0),
        torch.tensor([[True, False, True]]),
        torch.tensor([64.0, 96]),
        torch.tensor([[8.0], [8], [16]]),
    )


def test_box_losses_are_weighted_by_target_scores():
    """IoU 4/8 with weight 0.5 and 1/3 with weight 1, divided by 4; DFL is the original's."""
    loss, dfl = box_losses(dict(type="IoULoss", mode="linear"))
    assert loss.item() == pytest.approx((0.5 * (1 - 4 / 8) + (1 - 1 / 3)) / 4)
    assert dfl == 2


def test_boxes_are_in_pixels_and_deltas_in_strides():
    pred = torch.tensor([[8.0, 8, 32, 24], [16, 16, 32, 48]])
    target = torch.tensor([[8.0, 0, 24, 24], [0, 16, 32, 32]])
    weight = torch.tensor([0.5, 1])
    size = torch.tensor([[96.0, 64]]).expand(2, 2)  # width, height
    for name, inputs in (("NWDLoss", {}), ("MPDIoULoss", {"image_size": size})):
        expected = build_loss(name)(pred, target, weight=weight, avg_factor=4, **inputs)
        torch.testing.assert_close(box_losses(name)[0], expected)
    # Differences of left, top, right, bottom: 0, 1, 1, 0 with weight 0.5, and 1, 0, 0, 1.
    assert box_losses("L1Loss")[0].item() == pytest.approx((0.5 * 2 + 2) / 4)


def test_a_class_loss_has_soft_targets():
    pred, target = torch.randn(2, 5, 3), torch.rand(2, 5, 3) * (torch.rand(2, 5, 3) > 0.5)
    loss = build_loss("QualityFocalLoss")
    found = ClassLoss(loss)(pred, target)
    quality = (target - pred.sigmoid()).abs() ** 2
    bce = nn.functional.binary_cross_entropy_with_logits(pred, target, reduction="none")
    torch.testing.assert_close(found, quality * bce)


@needs_ultralytics
@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"loss_cls": "GHMCLoss"}, "loss_cls: targets are in.*GHMCLoss does not accept"),
        ({"loss_cls": "CrossEntropyLoss"}, "scores by sigmoid"),
        ({"loss_cls": "EQLv2Loss"}, "loss_cls: targets are in"),
        ({"loss_bbox": "FocalLoss"}, "takes a box loss"),
        ({"loss_bbox": "GIoULoss(reduction='sum')"}, "reduction='mean'"),
        ({"loss_dfl": "DistributionFocalLoss"}, "loss_dfl: this model .* remove it"),
    ],
)
def test_losses_that_do_not_fit(models, losses, message):
    with pytest.raises(InputError, match=message):
        use_losses(copy.deepcopy(models["yolo26n.yaml"]), **losses)


@needs_ultralytics
def test_all_quality_losses_fit(models, outputs):
    given = outputs[0]["yolo11n.yaml"], outputs[1]
    names = ("QualityFocalLoss", "VarifocalLoss", "IoUAwareBCELoss", "MatchabilityAwareLoss")
    values = [
        evaluated(models["yolo11n.yaml"], given, torch.float32, {"loss_cls": name})[0][1].item()
        for name in (*names, "SlideLoss", "FocalLoss", "BinaryCrossEntropyLoss")
    ]
    assert np.isfinite(values).all() and len(set(values)) == len(values)


@needs_ultralytics
def test_criteria_without_upright_boxes_are_refused(models, ultralytics_offline):
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import OBBModel

    model = OBBModel("yolo11n-obb.yaml", nc=2, verbose=False)
    model.args = get_cfg(overrides={"task": "obb"})
    with pytest.raises(InputError, match=r"RotatedBboxLoss.*pip install 'det-losses\[yolo\]'"):
        use_losses(model, "GIoULoss")


@needs_ultralytics
def test_state_belongs_to_one_criterion_and_stays_in_validation(models, outputs):
    """WIoU v3 has a running mean of 1 - IoU, which the one-to-one matches must not share."""
    model = copy.deepcopy(models["yolo26n.yaml"])
    given = build_loss("WIoUv3Loss")
    many, one = (each["loss_bbox"].loss for each in use_losses(model, given))
    assert many is not one
    preds, batch = moved(outputs[0]["yolo26n.yaml"], torch.float32), outputs[1]
    state = copy.deepcopy(many.state_dict())
    averaged = copy.deepcopy(models["yolo26n.yaml"])
    criterion.share_losses(model, averaged)
    with torch.inference_mode():
        averaged.loss(batch, preds)
    assert all(torch.equal(value, many.state_dict()[key]) for key, value in state.items())
    model.loss(batch, preds)
    assert not all(torch.equal(value, many.state_dict()[key]) for key, value in state.items())


# The data


def draw_data(folder: Path) -> dict[str, Path]:
    """Write images of two sizes, whose boxes reach beyond them or are crowds, with sparse ids.

    The validation json has the classes in another order, with other ids.
    """
    rng = np.random.default_rng(0)
    categories = {"train": {3: "cat", 18: "dog"}, "val": {5: "dog", 7: "cat"}}
    (folder / "images").mkdir(parents=True)
    found = {"train_images": folder / "images", "val_images": folder / "images"}
    for split, (count, first) in {"train": (6, 100), "val": (4, 7)}.items():
        images, annotations = [], []
        for number in range(count):
            width, height = (80, 64) if number % 2 else (64, 72)
            image_id, file = first + 13 * number, f"{split}_{number}.jpg"
            pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
            boxes = [[2, 4, 40, 30], [30, 20, 60, 20], [0, 50, 20, 10]]
            for index, (x, y, w, h) in enumerate(boxes):
                pixels[y : y + h, x : x + w, index] = 250
                ids = list(categories[split])
                annotation = {"id": len(annotations) + 1, "image_id": image_id, "area": w * h}
                annotation |= {"category_id": ids[index % 2], "bbox": [x, y, w, h]}
                annotations.append({**annotation, "iscrowd": int(index == 2)})
            Image.fromarray(pixels).save(folder / "images" / file)
            images.append({"id": image_id, "file_name": file, "width": width, "height": height})
        content = {"images": images, "annotations": annotations}
        content["categories"] = [{"id": i, "name": n} for i, n in categories[split].items()]
        found[f"{split}_ann"] = folder / f"{split}.json"
        found[f"{split}_ann"].write_text(json.dumps(content))
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_data(tmp_path_factory.mktemp("coco"))


def test_layout(data, tmp_path):
    layout = write_layout(tmp_path / "layout", **data)
    labels = sorted((tmp_path / "layout/labels/train").iterdir())
    assert [file.name for file in labels][:2] == ["000000000100.txt", "000000000113.txt"]
    # 64 x 72. The crowd is left out, and the second box ends at the border: 30 to 64.
    rows = [[float(value) for value in line.split()] for line in labels[0].read_text().splitlines()]
    expected = [
        [0, 22 / 64, 19 / 72, 40 / 64, 30 / 72],
        [1, 47 / 64, 30 / 72, 34 / 64, 20 / 72],
    ]
    np.testing.assert_allclose(rows, expected, atol=1e-7)
    link = tmp_path / "layout/images/train/000000000100.jpg"
    assert link.is_symlink() and link.resolve() == data["train_images"].resolve() / "train_0.jpg"
    # Classes of the training data, with the validation's ids.
    assert json.loads(layout.data.read_text())["names"] == {"0": "cat", "1": "dog"}
    assert layout.category_ids == (7, 5)
    first = (tmp_path / "layout/labels/val/000000000007.txt").read_text()
    assert [line[0] for line in first.splitlines()] == ["1", "0"]


def test_an_orientation_that_the_json_ignores_is_removed(data, tmp_path):
    """ultralytics turns such an image; the boxes belong to the stored pixels."""
    folder, exif = tmp_path / "turned", Image.Exif()
    own = draw_data(folder)
    exif[0x0112] = 6
    with Image.open(folder / "images/val_1.jpg") as image:
        stored = np.array(image)
        image.save(folder / "images/val_1.jpg", exif=exif, quality=100)
    write_layout(tmp_path / "layout", **own)
    with Image.open(tmp_path / "layout/images/val/000000000020.png") as image:
        assert image.size == (80, 64) and not image.getexif()
        assert np.abs(np.array(image).astype(int) - stored).mean() < 3


# Trainings

# Each batch is a step of the optimizer; ultralytics accumulates up to 64 images by default.
STEPS = {"nbs": 3, "warmup_epochs": 0.0}
ARGUMENTS = {"epochs": 2, "imgsz": 64, "batch": 3, "device": "cpu", "conf": 1e-6, **STEPS}


@needs_ultralytics
@pytest.mark.parametrize("name", MODELS)
def test_training(data, tmp_path, name):
    """Two epochs; the result file has the json's ids. The same seed gives the same detections."""
    own = dict(data, seed=3, **ARGUMENTS)
    trained = train(name, "WIoUv3Loss", work_dir=tmp_path / "a", loss_cls="VarifocalLoss", **own)
    assert trained.detections == tmp_path / "a/predictions.json"
    rows = read_detections(trained.detections, GroundTruth(data["val_ann"]))
    assert set(rows[:, 0]) == {7, 20, 33, 46} and set(rows[:, 6]) <= {5, 7}
    assert ((rows[:, 1:3] + rows[:, 3:5]).max(0) <= [80.01, 72.01]).all()
    assert trained.checkpoint.is_file() and 0 <= trained.metrics["AP"] <= 100
    if name == "yolo11n.yaml":
        again = train(name, "WIoUv3Loss", work_dir=tmp_path / "b", loss_cls="VarifocalLoss", **own)
        assert again.detections.read_bytes() == trained.detections.read_bytes()


@needs_ultralytics
def test_the_last_epoch_is_evaluated(data, tmp_path, monkeypatch, ultralytics_offline):
    from det_losses.adapters.ultralytics.trainer import CocoValidator

    evaluated = []
    plain = CocoValidator.__call__

    def spy(self, trainer=None, model=None):
        evaluated.append(model)
        return plain(self, trainer, model)

    monkeypatch.setattr(CocoValidator, "__call__", spy)
    trained = train(work_dir=tmp_path, **data, **ARGUMENTS)
    assert evaluated == [None, None, trained.checkpoint]  # None: the averaged model, in training
    assert trained.checkpoint.name == "last.pt"


@needs_ultralytics
def test_runs_of_a_seed_differ_in_the_loss_only(data, tmp_path):
    """Without learning, detections show the initial weights and, by batch norm, the batches."""
    still = {**ARGUMENTS, "optimizer": "SGD", "lr0": 0.0}
    found = [
        train(loss=loss, seed=seed, work_dir=tmp_path / loss / str(seed), **data, **still)
        for loss, seed in (("CIoULoss", 0), ("SumLoss(L1Loss, WIoUv3Loss)", 0), ("CIoULoss", 1))
    ]
    first, other_loss, other_seed = (each.detections.read_bytes() for each in found)
    assert first == other_loss != other_seed
    # The losses in the validations are those of the training.
    tables = [(each.detections.parent / "results.csv").read_text() for each in found[:2]]
    rows = [list(csv.DictReader(table.splitlines()))[-1] for table in tables]
    assert rows[0]["val/dfl_loss"] == rows[1]["val/dfl_loss"]
    assert rows[0]["val/box_loss"] != rows[1]["val/box_loss"]


@needs_ultralytics
def test_the_code_of_the_docs_runs(tmp_path, monkeypatch, capsys, ultralytics_offline):
    """docs/yolo.md: the first block trains; the callback of the second one puts the loss in."""
    draw_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    names = {}
    for block in blocks:
        exec(compile(block, "docs/yolo.md", "exec"), names)
    assert names["trained"].detections.parent == tmp_path / "work_dirs/yolo11n_eiou"
    yolo = names["yolo"]
    yolo.train(
        data=str(names["trained"].detections.parent / "ultralytics_data/data.yaml"),
        epochs=1,
        imgsz=64,
        project=str(tmp_path),
        name="plain",
        device="cpu",
        plots=False,
    )
    (losses,) = criterion.criteria(yolo.trainer.model.criterion)
    assert type(losses.bbox_loss.loss).__name__ == "EIoULoss" and losses.bbox_loss.calls == 1


# Every way to the network is recorded, because ultralytics catches most errors.
WITHOUT_NETWORK = """
import socket, sys

def refuse(*args, **kwargs):
    print("NETWORK", args)
    raise OSError("no network")

for name in ("getaddrinfo", "create_connection", "gethostbyname"):
    setattr(socket, name, refuse)
socket.socket.connect = refuse

import subprocess

class Popen(subprocess.Popen):
    def __init__(self, args, *rest, **kwargs):
        if any(name in str(args) for name in ("pip", "curl", "wget")):
            print("NETWORK", args)
        super().__init__(args, *rest, **kwargs)

subprocess.Popen = Popen

from det_losses.adapters.ultralytics.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@needs_ultralytics
def test_nothing_is_downloaded_or_sent_and_settings_stay(data, tmp_path):
    """In a process of its own: ultralytics sends nothing where it sees pytest."""
    home = tmp_path / "home"
    home.mkdir()
    options = [f"--{key.replace('_', '-')}={value}" for key, value in data.items()]
    words = [f"{key}={value}" for key, value in ARGUMENTS.items()]
    words += ["plots=true", "--loss=EIoULoss", "--work-dir=run"]
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, *options, *words],
        cwd=tmp_path,
        env={
            **{key: value for key, value in os.environ.items() if "PYTEST" not in key},
            "HOME": str(home),
            "ULTRALYTICS_API_KEY": f"ul_{'0' * 40}",
            "XDG_CONFIG_HOME": str(home),
            "MPLCONFIGDIR": str(tmp_path / "mpl"),
        },
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "NETWORK" not in process.stdout
    assert not [path for path in home.rglob("*") if "ultralytics" in path.name.lower()]
    assert {file.name for file in tmp_path.iterdir()} == {"home", "run", "mpl"}
    assert f"detections: {tmp_path / 'run/predictions.json'}" in process.stdout


# Errors


def test_missing_ultralytics(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed: pip install 'det-losses\[yolo\]'"):
        train(work_dir=tmp_path, **data)
    options = [f"--{key.replace('_', '-')}={value}" for key, value in data.items()]
    assert command_line([*options, "--work-dir", str(tmp_path)]) == 2
    assert "error: ultralytics is not installed" in capsys.readouterr().err


@needs_ultralytics
def test_an_old_version_of_ultralytics(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training.importlib.metadata, "version", lambda name: "8.3.253")
    with pytest.raises(InputError, match=r"8.3.253 is too old, .*pip install 'det-losses\[yolo\]'"):
        train(work_dir=tmp_path, **data)


def test_the_extra_installs_a_version_that_is_accepted():
    oldest = ".".join(map(str, training.OLDEST))
    assert f"ultralytics>={oldest},<9" in (GUIDE.parents[1] / "setup.cfg").read_text()


def test_another_version_of_ultralytics(data, tmp_path, monkeypatch):
    (tmp_path / "cfg").mkdir()
    (tmp_path / "cfg/default.yaml").write_text("{}")
    monkeypatch.setattr(training, "_package", lambda: tmp_path)
    monkeypatch.setattr(training, "check_model", lambda model: None)
    monkeypatch.setitem(sys.modules, "ultralytics.engine", None)  # cannot be imported
    with pytest.raises(InputError, match=r"this version.*pip install 'det-losses\[yolo\]'"):
        train(work_dir=tmp_path, **data)


@needs_ultralytics
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epoch": 3}, InputTypeError, "no argument 'epoch'. Did you mean 'epochs'"),
        ({"epochs": "many"}, InputError, "epochs"),
        ({"resume": True}, InputError, "an interrupted run starts again"),
        ({"device": "0,1"}, InputError, "trains on one device"),
        ({"model": "yolo11n.pt"}, MissingFileError, "nothing is downloaded"),
        ({"pretrained": "yolo11n.pt"}, MissingFileError, "pretrained yolo11n.pt: no such file"),
        ({"model": "yolo99n.yaml"}, MissingFileError, "Models of ultralytics are yolov8n.yaml"),
        ({"model": "yolo11n-seg.yaml", **ARGUMENTS}, InputError, "its head is Segment"),
        ({"loss": "GIuLoss", **ARGUMENTS}, KeyError, "GIoULoss"),
    ],
)
def test_arguments_that_cannot_be_used(data, tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        train(work_dir=tmp_path, **data, **arguments)


@needs_ultralytics
@pytest.mark.parametrize(
    ("trainer", "losses", "message"),
    [
        ({"epoch": 3}, {}, "Did you mean 'epochs'"),
        ({"model": "yolo11n.pt"}, {}, "nothing is downloaded"),
        ({}, {"loss_bbox": "GIuLoss"}, "GIoULoss"),
        ({}, {"loss_bbox": "FocalLoss"}, "takes a box loss"),
        ({"model": "yolo11n.yaml", "epochs": 3}, {"loss_bbox": "InnerIoU(CIoULoss)"}, None),
    ],
)
def test_a_comparison_checks_its_runs_before_the_first(data, tmp_path, trainer, losses, message):
    run = TrainingRun(
        label="a", losses=losses, seed=0, work_dir=tmp_path, config=Config({}), **data
    )
    if message is None:
        UltralyticsTrainer(**trainer).check(run)
        return
    with pytest.raises(UserError, match=message):
        UltralyticsTrainer(**trainer).check(run)


@needs_ultralytics
def test_an_image_that_ultralytics_leaves_out_is_an_error(tmp_path):
    own = draw_data(tmp_path / "coco")
    content = json.loads(own["train_ann"].read_text())
    Image.new("RGB", (8, 64)).save(tmp_path / "coco/images/train_0.jpg")
    content["images"][0] |= {"width": 8, "height": 64}
    own["train_ann"].write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"train: ultralytics leaves out 1 image .*train_0.jpg"):
        train(work_dir=tmp_path / "run", **own, **ARGUMENTS)


# The runs of a comparison


def test_the_command_of_a_run(data, tmp_path):
    """The values of the config arrive as they are."""
    arguments = {"epochs": 3, "amp": False, "lr0": 1e-3, "optimizer": "SGD", "freeze": [0, 1]}
    trainer = UltralyticsTrainer("yolov8n.yaml", **arguments)
    losses = {"loss_bbox": "InnerIoU(CIoULoss, ratio=0.7)", "loss_cls": "VarifocalLoss"}
    run = TrainingRun(
        label="a", losses=losses, seed=4, work_dir=tmp_path, config=Config({}), **data
    )
    command = trainer.command(run)
    assert command[:3] == [sys.executable, "-m", "det_losses.adapters.ultralytics"]
    parsed = vars(_parser().parse_args(command[3:]))
    words = parsed.pop("arguments")
    assert parsed == {
        "model": "yolov8n.yaml",
        "loss": losses["loss_bbox"],
        "loss_cls": "VarifocalLoss",
        "loss_dfl": None,
        "work_dir": str(tmp_path),
        "seed": 4,
        **{key: str(value) for key, value in data.items()},
    }
    assert dict(map(_argument, words)) == arguments
    assert trainer.detections(run) == tmp_path / "predictions.json"
    assert _argument("lr0=1e-3") == ("lr0", 0.001) and _argument("amp=false") == ("amp", False)
    with pytest.raises(InputError, match="expected KEY=VALUE"):
        _argument("epochs")
