"""Hashes change with what they stand for, and with nothing else."""

import hashlib
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from det_losses.engine.fingerprint import configuration, loss_hash, weights_hash
from det_losses.losses import build_loss, list_losses

BASE = """
from det_losses.losses import Loss
from {package}.helper import factor

class Base(Loss):
    kind, space, paper = "box", "delta", ""

    def unreduced(self, pred, target, weight=None):
        return factor() * (pred - target).abs()
"""
LOSS = """
from torch import Tensor, nn
from {package}.base import Base

class Own(Base):
    def __init__(self, *, inner=None, reduction="mean", loss_weight=1.0):
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        self.inner = inner
"""
HELPER = "def factor():\n    return 2.0\n"
UNUSED = "def other():\n    return 1\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Factory: write a package of four modules, with changed ones, and build its loss."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(inner=None, name="ownlosses", **changed):
        for module in [name for name in sys.modules if name.split(".")[0] == "ownlosses"]:
            monkeypatch.delitem(sys.modules, module)
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        files = dict(base=BASE, loss=LOSS, helper=HELPER, unused=UNUSED) | changed
        for module, text in files.items():
            (folder / f"{module}.py").write_text(text.format(package=name))
        importlib.invalidate_caches()
        sys.path_importer_cache.clear()
        return importlib.import_module(f"{name}.loss").Own(inner=inner)

    return make


def test_every_registered_loss_has_its_own_hash():
    hashes = {info.name: loss_hash(build_loss(info.config)) for info in list_losses()}
    assert len(set(hashes.values())) == len(hashes)
    assert all(len(value) == 64 for value in hashes.values())


@pytest.mark.parametrize("changes", [{"loss_weight": 2.0}, {"eps": 1e-6}, {"reduction": "sum"}])
def test_a_parameter_changes_the_hash(changes):
    assert loss_hash(build_loss("GIoULoss")) == loss_hash(build_loss("GIoULoss"))
    assert loss_hash(build_loss("GIoULoss", **changes)) != loss_hash(build_loss("GIoULoss"))


@pytest.mark.parametrize("module", ["loss", "base", "helper", "unused"])
def test_changed_code_changes_the_hash_where_the_loss_uses_it(package, module):
    first = loss_hash(package())
    assert loss_hash(package()) == first
    text = dict(loss=LOSS, base=BASE, helper=HELPER, unused=UNUSED)[module]
    changed = loss_hash(package(**{module: text + "\n# another version\n"}))
    assert (changed != first) == (module != "unused")


def test_a_nested_loss_counts(package):
    def nested(loss):
        return loss_hash(package(inner=loss))

    assert nested(build_loss("GIoULoss")) == nested(build_loss("GIoULoss"))
    assert nested(build_loss("GIoULoss")) != nested(build_loss("DIoULoss"))
    assert nested(build_loss("GIoULoss")) != nested(build_loss("GIoULoss", eps=1e-3))


def test_box_arithmetic_counts(monkeypatch):
    read = {}
    monkeypatch.setattr(
        "det_losses.engine.fingerprint._source", lambda name: read.setdefault(name, name)
    )
    loss_hash(build_loss("L1Loss"))
    assert {"det_losses.boxes", "det_losses.tensors", "det_losses.losses.l1"} <= set(read)
    assert "det_losses.losses.core.base" in read  # a class further up
    assert not [name for name in read if not name.startswith("det_losses.")]
    read.clear()
    # Its sigmoid is the function of another loss.
    loss_hash(build_loss("CrossEntropyLoss"))
    assert "det_losses.losses.binary_cross_entropy" in read


def test_another_process_gives_the_same_hash():
    code = (
        "from det_losses.engine.fingerprint import loss_hash\n"
        "from det_losses import build_loss\n"
        "print(loss_hash(build_loss('FocalEIoULoss', gamma=0.7)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
    )
    assert done.stdout.split()[-1] == loss_hash(build_loss("FocalEIoULoss", gamma=0.7))


def test_a_loss_of_another_project():
    assert loss_hash(nn.L1Loss()) == loss_hash(nn.L1Loss())
    assert loss_hash(nn.L1Loss()) != loss_hash(nn.MSELoss())


def test_configuration_names_no_address():
    class Odd:
        pass

    first, second = (build_loss("L1Loss") for _ in "ab")
    first.loss_weight, second.loss_weight = Odd(), Odd()
    assert configuration(first) == configuration(second)
    for value in (float("nan"), torch.ones(2), {"b": 1, "a": {2, 1}}, [nn.L1Loss], len, None):
        first.loss_weight = second.loss_weight = value
        assert configuration(first) == configuration(second)


class TestWeights:
    def model(self, dtype=torch.float32):
        model = nn.Module()
        model.detector = nn.BatchNorm1d(2, dtype=dtype)
        model.losses = nn.ModuleDict({"loss_bbox": nn.BatchNorm1d(1)})
        return model

    def test_it_is_the_sha256_of_names_types_and_bytes(self):
        digest = hashlib.sha256()
        for name, value in self.model().detector.state_dict().items():
            digest.update(f"detector.{name} {value.dtype} {list(value.shape)}\n".encode())
            digest.update(value.numpy().tobytes())
        assert weights_hash(self.model()) == digest.hexdigest()

    def test_each_bit_counts_and_the_losses_do_not(self):
        expected = weights_hash(self.model())
        for name in ("weight", "running_var", "num_batches_tracked"):
            model = self.model()
            tensor = getattr(model.detector, name).data
            tensor += 1 if name.startswith("num") else 1e-7
            assert weights_hash(model) != expected, name
        assert weights_hash(self.model(torch.float64)) != expected
        model = self.model()
        model.losses["loss_bbox"].running_mean += 1
        assert weights_hash(model) == expected

    def test_it_looks_through_a_wrapper(self):
        wrapper = nn.Module()
        wrapper.module = self.model()
        assert weights_hash(wrapper) == weights_hash(self.model())
