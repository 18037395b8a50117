"""Every registered loss passes every check of the suite, with its paper's equation as reference."""

from importlib import import_module
from pathlib import Path

import pytest

from det_losses.conformance import (
    CHECKS,
    SLOW,
    Failed,
    Skipped,
    case_of,
    collect_references,
    explanation,
    registered_losses,
)

# All reference files, found by name.
FILES = sorted(Path(__file__).parent.glob("reference_*.py"))
REFERENCES = collect_references(*(import_module(path.stem) for path in FILES))
# Other tests register further losses in the same process.
NAMES = [n for n, cls in registered_losses().items() if cls.__module__.startswith("det_losses.")]
FAST = [check for check in CHECKS if check not in (*SLOW, "compile")]
# Compilation takes a third of a second, so by default one loss of each implementation is compiled:
# elementwise, IoU terms with a stop-gradient, wrapper, sum of losses, running mean, sigmoid,
# softmax with counters, quality, bins. The others are compiled with -m slow.
COMPILED = (
    "SmoothL1Loss",
    "CIoULoss",
    "InnerIoU",
    "SumLoss",
    "WIoUv3Loss",
    "FocalLoss",
    "SeesawLoss",
    "QualityFocalLoss",
    "DistributionFocalLoss",
)


def assert_conforms(name, checks):
    """Run checks and list all that fail; an unexpected exception keeps its traceback."""
    case = case_of(name, REFERENCES)
    failed = []
    for check in checks:
        try:
            CHECKS[check](case)
        except Skipped:
            pass
        except Failed as error:
            failed.append(f"{name}, {check}: {error}")
    if failed:
        pytest.fail("\n".join(failed), pytrace=False)


@pytest.mark.parametrize("name", NAMES)
def test_conformance(name):
    assert_conforms(name, FAST)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in COMPILED else pytest.mark.slow) for n in NAMES]
)
def test_compile(name):
    assert_conforms(name, ["compile"])


@pytest.mark.slow
@pytest.mark.parametrize("check", SLOW)
@pytest.mark.parametrize("name", NAMES)
def test_slow_conformance(name, check):
    try:
        CHECKS[check](case_of(name, REFERENCES))
    except Skipped as reason:
        pytest.skip(str(reason))


def test_every_loss_has_a_reference_for_value_and_gradient():
    lacking = [n for n in NAMES if not any(r.constants for r in REFERENCES.get(n, ()))]
    assert lacking == [], (
        "write the equation of the paper in numpy in a reference_*.py next to this file, and add "
        "it to REFERENCES there: {name: [({}, function, constants)]}; constants returns what is "
        "constant in the gradient, or {}"
    )


def test_every_reference_and_every_compiled_name_is_a_loss():
    assert {*REFERENCES, *COMPILED} <= set(NAMES)


def test_every_check_has_a_one_line_description():
    sentences = [explanation(check) for check in CHECKS]
    assert [s for s in sentences if not s.endswith(".") or len(s) >= 100] == []
