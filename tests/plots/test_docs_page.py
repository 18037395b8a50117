"""The commands and the printed counts of docs/curves.md; tests/test_guide.py runs all its code."""

import re
import shlex
from pathlib import Path

import pytest

from det_losses.cli import plot_losses
from det_losses.plots import probe
from det_losses.plots.landscape import landscape
from det_losses.registry import MODELS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "curves.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    det-losses plot_losses (.*)$", TEXT, re.MULTILINE)
LARGEST = {".png": 120e3, ".svg": 200e3}  # bytes


@pytest.fixture
def faulty_losses():
    """Register the losses that the page defines."""
    before = dict(MODELS.module_dict)
    exec(re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1], {})
    yield
    MODELS.module_dict.clear()
    MODELS.module_dict.update(before)


@pytest.mark.usefixtures("faulty_losses")
def test_commands_build_their_losses():
    assert len(COMMANDS) == 4
    for command in COMMANDS:
        args = plot_losses._parser().parse_args(shlex.split(command))
        assert probe.named_losses(args.losses)


@pytest.mark.usefixtures("faulty_losses")
def test_printed_counts_are_right():
    shown = re.findall(r"^    (\w+Loss\S*), (position: .*)$", TEXT, re.MULTILINE)
    assert len(shown) == 4
    for label, line in shown:
        assert landscape(probe.named_losses([label])[label], "position").counts() == line
    away = landscape(probe.named_losses(["PIoUv2Loss"])["PIoUv2Loss"], "position").away.sum()
    assert f"points away from the target in {away} cells" in TEXT


def test_pictures_exist_and_are_small():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", TEXT)
    assert len(pictures) == 4
    for name in pictures:
        file = ROOT / "docs" / name
        assert 0 < file.stat().st_size < LARGEST[file.suffix], name
