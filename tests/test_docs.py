"""docs/losses.md is generated from the classes, and its examples of other libraries run."""

import doctest
import re
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from det_losses.losses.core.card import BY_HAND, COMMAND, cards_markdown, loss_cards
from det_losses.registry import MODELS

FILE = Path(__file__).parents[1] / "docs" / "losses.md"
TEXT = FILE.read_text(encoding="utf-8")
PEERS = re.findall(r"^### (\S+) (\d\S*)\n(.*?)(?=^### )", TEXT, re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"```pycon\n(.*?)```", re.DOTALL)


def own_cards():
    """Cards of this package's losses; other tests may have registered theirs."""
    modules = MODELS.module_dict
    own = {name for name, cls in modules.items() if cls.__module__.startswith("det_losses.losses.")}
    return [card for card in loss_cards() if card.info.name in own]


def test_docs_of_the_losses_are_up_to_date():
    # Compared by line, so that a failure names the line and not two whole files.
    fresh, stored = cards_markdown(own_cards(), TEXT).splitlines(), TEXT.splitlines()
    differs = [pair for pair in zip(stored, fresh, strict=False) if pair[0] != pair[1]]
    same = len(fresh) == len(stored) and not differs
    assert same, f"docs/losses.md is out of date, run: {COMMAND}; it differs at {differs[:1]}"


def test_the_hand_written_part_is_there():
    assert TEXT.count(f"\n{BY_HAND}\n") == 1
    assert {"torchvision", "ultralytics", "mmdet"} <= {name for name, _, _ in PEERS}


@pytest.fixture
def without_stand_ins():
    """Remove the stand-ins for mmcv and mmdet that an example put into sys.modules."""
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mmcv", "mmdet")]:
        del sys.modules[name]


@pytest.mark.usefixtures("without_stand_ins")
@pytest.mark.parametrize(("name", "stated", "text"), PEERS, ids=[name for name, _, _ in PEERS])
def test_examples_of_another_library_print_what_the_docs_say(name, stated, text):
    try:
        found = version(name).partition("+")[0]
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    if found != stated:
        pytest.skip(f"docs/losses.md is about {name} {stated}, installed is {found}")
    before = BLOCK.search(TEXT)[1]
    source = "\n".join([before, *BLOCK.findall(text)])
    example = doctest.DocTestParser().get_doctest(source, {}, name, str(FILE), 0)
    failures = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        result = runner.run(example, out=failures.append)
    assert result.attempted > 3
    assert not result.failed, "".join(failures)
