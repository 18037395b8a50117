"""Every registered loss holds to every check of the suite, against its paper's equation."""

from importlib import import_module
from pathlib import Path

import pytest

from det_losses.conformance import (
    CHECKS,
    SLOW,
    Skipped,
    case_of,
    explained,
    references_of,
    registered,
)

# One file of references for each part of the family, all found by their names.
FILES = sorted(Path(__file__).parent.glob("reference_*.py"))
REFERENCES = references_of(*(import_module(path.stem) for path in FILES))
# Other tests register losses of their own in the same process.
NAMES = [n for n, cls in registered().items() if cls.__module__.startswith("det_losses.")]


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_has_a_reference(name):
    assert name in REFERENCES, (
        f"{name} has no reference: write its paper's equation in numpy into a reference_*.py "
        f"beside this file, and add it to REFERENCES there: {name!r}: [({{}}, function)]"
    )


def test_every_reference_is_of_a_loss():
    assert set(REFERENCES) <= set(NAMES)


@pytest.mark.parametrize(
    "check", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CHECKS]
)
@pytest.mark.parametrize("name", NAMES)
def test_conformance(name, check):
    try:
        CHECKS[check](case_of(name, REFERENCES))
    except Skipped as reason:
        pytest.skip(f"{check}: {reason}")


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_says_in_a_sentence_what_it_demands(check):
    sentence = explained(check)
    assert sentence.endswith(".") and len(sentence) < 100
