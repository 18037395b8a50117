"""tools/check_losses.py on losses of another package."""

import sys
from pathlib import Path

import pytest
from hypothesis.configuration import storage_directory

import det_losses.models  # noqa: F401  registers a detector, which is not a loss
from det_losses.cli import check_losses
from det_losses.conformance import CHECKS
from det_losses.paths import cache_root
from det_losses.registry import MODELS

LOSSES = '''
from det_losses.losses import IoUFamilyLoss
from det_losses.registry import MODELS


@MODELS.register_module()
class FarAwayLoss(IoUFamilyLoss):
    """Rewards distance."""

    paper = "made up"

    def penalties(self, pair):
        return (-pair.center_distance2 / pair.hull_diagonal2,)


@MODELS.register_module()
class DepthLoss(IoUFamilyLoss):
    """Overlap, weighed by a depth."""

    paper = "made up"
    inputs = ("depth",)

    def factor(self, pair, weight=None):
        return pair.inputs["depth"]
'''

REFERENCES = """
import torch


def linear_iou(pred, target, *, depth, **_):
    w = (np.minimum(pred[:, 2:], target[:, 2:]) - np.maximum(pred[:, :2], target[:, :2])).clip(0)
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (pred, target)]
    overlap = w.prod(1)
    return depth * (1 - overlap / (areas[0] + areas[1] - overlap))


REFERENCES = {"DepthLoss": [({}, linear_iou)]}
INPUTS = {"depth": lambda n, generator: torch.rand(n, generator=generator) + 1}
"""

# Other checks are tested with the suite; these tests are of the table.
FEW = ("value", "zero", "distance", "weights", "card")


@pytest.fixture(autouse=True)
def their_package(tmp_path, monkeypatch):
    (tmp_path / "their_losses.py").write_text(LOSSES)
    (tmp_path / "their_references.py").write_text("import numpy as np\n" + REFERENCES)
    (tmp_path / "broken.py").write_text("import a_module_that_nobody_has\n")
    (tmp_path / "empty.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(MODELS.module_dict)
    for name in set(CHECKS) - set(FEW):
        monkeypatch.delitem(CHECKS, name)
    yield
    for name in set(MODELS.module_dict) - known:
        del MODELS.module_dict[name]
    for name in ("their_losses", "their_references", "broken", "empty"):
        sys.modules.pop(name, None)


def rows_of(text):
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines[2:]}


def test_an_import_checks_the_losses_that_it_registers(capsys):
    arguments = ["--import", "their_losses", "--references", "their_references"]
    assert check_losses.main(arguments) == 1
    text = capsys.readouterr().out
    assert rows_of(text) == {
        "DepthLoss": ["+", "+", "+", "+", "s"],
        "FarAwayLoss": ["s", "+", "F", "+", "s"],
    }
    assert "\n1 value     The value equals an independent reference" in text.replace("\n ", "\n")
    assert (
        "skipped value: no reference: define REFERENCES in the module of --references (Far" in text
    )
    assert "FAILED FarAwayLoss, distance: monotone_in_distance is True, but the loss falls" in text
    assert text.endswith("2 losses: 6 passed, 1 failed, 3 skipped\n")


def test_names_select_losses_and_no_failure_is_status_0(capsys):
    assert check_losses.main(["GIoULoss", "L1Loss"]) == 0
    text = capsys.readouterr().out
    assert rows_of(text) == {
        "GIoULoss": ["s", "+", "+", "+", "+"],
        "L1Loss": ["s", "+", "+", "+", "+"],
    }
    assert "FAILED" not in text
    # Hypothesis stores what it learns of the code in the current folder, unless it is told where.
    storage = storage_directory()
    folder = Path(getattr(storage, "path", storage))  # older versions return the path
    assert folder.is_relative_to(cache_root())


def test_a_second_import_in_one_process_finds_the_same_losses(capsys):
    for _ in range(2):
        check_losses.main(["--import", "their_losses"])
        assert set(rows_of(capsys.readouterr().out)) == {"DepthLoss", "FarAwayLoss"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--import", "nowhere"], "--import nowhere: cannot be imported: ModuleNotFoundError"),
        (["--import", "broken"], "No module named 'a_module_that_nobody_has'"),
        (["--import", "empty"], "--import empty registers no loss: it needs a subclass of"),
        (["GIuLoss"], "'GIuLoss' is not in the det_losses model registry. Did you mean 'GIoU"),
        (["RetinaNet"], "NAME RetinaNet: RetinaNet is not a det_losses.losses.Loss"),
        (["--references", "empty"], "empty has no REFERENCES = {name: [(kwargs, function)]}"),
        (["L1Loss", "--references", "their_references"], "'DepthLoss' is not in the det_losses"),
    ],
)
def test_wrong_arguments_are_errors_with_a_message(arguments, message, capsys):
    with pytest.raises(SystemExit) as status:
        check_losses.main(arguments)
    assert status.value.code == 2
    assert message in capsys.readouterr().err


def test_without_hypothesis_the_error_names_the_extra(monkeypatch, capsys):
    for name in [n for n in sys.modules if n.startswith("det_losses.conformance")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(SystemExit) as status:
        check_losses.main(["L1Loss"])
    assert status.value.code == 2
    assert "needs hypothesis: pip install 'det-losses[check]'" in capsys.readouterr().err
