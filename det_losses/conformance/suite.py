"""The checks by name, and the function that runs them on a loss."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType

import torch

from det_losses.conformance import formula, interface, robustness
from det_losses.conformance.case import Case, Failed, Maker, Reference, Skipped
from det_losses.errors import InputError
from det_losses.losses.core.base import Loss
from det_losses.registry import MODELS

Check = Callable[[Case], None]

CHECKS: dict[str, Check] = {
    "value": formula.value,
    "gradient": formula.gradient,
    "reference_gradient": formula.reference_gradient,
    "stop_gradient": formula.stop_gradient,
    "fast_path": formula.fast_path,
    "zero": formula.zero,
    "invariances": formula.invariances,
    "distance": formula.distance,
    "row_order": formula.row_order,
    "degenerate": robustness.degenerate,
    "fuzz": robustness.fuzz,
    "fuzz_long": robustness.fuzz_long,
    "half_precision": robustness.half_precision,
    "autocast": robustness.autocast,
    "weights": interface.weights,
    "zero_weight": interface.zero_weight,
    "avg_factor": interface.avg_factor,
    "reductions": interface.reductions,
    "empty_batch": interface.empty_batch,
    "errors": interface.errors,
    "stateless": interface.stateless,
    "state": interface.state,
    "compile": interface.compiles,
    "inductor": interface.inductor,
    "vmap": interface.vmap,
    "repr": interface.rebuilds,
    "card": interface.card,
}
# Checks that take many seconds per loss; they run only on request.
SLOW = ("fuzz_long", "inductor")


@dataclass(frozen=True)
class Result:
    """The outcome of a check.

    Attributes:
        check: its name in :data:`CHECKS`.
        status: ``"pass"``, ``"fail"`` or ``"skip"``.
        message: expected and actual result, or the reason for skipping.
    """

    check: str
    status: str
    message: str = ""


def run(case: Case, *, slow: bool = False) -> list[Result]:
    """Run every check on a loss; an unexpected exception is a failure.

    Args:
        case: the loss.
        slow: also run the checks in :data:`SLOW`.
    """
    try:
        case.build()
    except Exception as error:
        message = f"cannot be built from {case.config()}: {type(error).__name__}: {error}"
        return [Result("repr", "fail", message)]
    return [
        Result(name, "skip", "slow, runs with --slow")
        if name in SLOW and not slow
        else _result(name, check, case)
        for name, check in CHECKS.items()
    ]


def _result(name: str, check: Check, case: Case) -> Result:
    torch.manual_seed(0)
    try:
        check(case)
    except Skipped as reason:
        return Result(name, "skip", str(reason))
    except Failed as error:
        return Result(name, "fail", str(error))
    except Exception as error:
        return Result(name, "fail", f"{type(error).__name__}: {error}")
    return Result(name, "pass")


def explanation(name: str) -> str:
    """Return the sentence that states what a check requires."""
    return (inspect.getdoc(CHECKS[name]) or "").partition("\n")[0]


def registered_losses() -> dict[str, type[Loss]]:
    """Return the registered losses by name, in alphabetical order."""
    return {
        name: cls
        for name, cls in sorted(MODELS.module_dict.items())
        if inspect.isclass(cls) and issubclass(cls, Loss)
    }


def collect_references(*modules: ModuleType) -> dict[str, tuple[Reference, ...]]:
    """Collect ``REFERENCES`` of modules: name -> [(kwargs, function[, constants])].

    Raises:
        InputError: a module has none.
    """
    found: dict[str, tuple[Reference, ...]] = {}
    for module in modules:
        if not hasattr(module, "REFERENCES"):
            raise InputError(
                f"{module.__name__} has no REFERENCES = {{name: [(kwargs, function)]}}"
            )
        for name, entries in module.REFERENCES.items():
            found[name] = found.get(name, ()) + tuple(Reference(*entry) for entry in entries)
    return found


def case_of(
    name: str,
    references: Mapping[str, tuple[Reference, ...]] | None = None,
    inputs: Mapping[str, Maker] | None = None,
) -> Case:
    """Return the case of a registered loss."""
    return Case(name, MODELS.module_dict[name], (references or {}).get(name, ()), inputs or {})
