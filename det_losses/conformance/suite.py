"""The checks by name, and their run over a loss."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from det_losses.conformance import (
    calling,
    card,
    extremes,
    formula,
    geometry,
    precision,
    state,
    transforms,
)
from det_losses.conformance.case import Case, Failed, Reference, Skipped
from det_losses.losses.core.base import Loss
from det_losses.registry import MODELS

Check = Callable[[Case], None]

CHECKS: dict[str, Check] = {
    "value": formula.value,
    "gradient": formula.gradient,
    "reference_gradient": formula.reference_gradient,
    "constant": formula.constant,
    "zero": formula.zero,
    "invariances": geometry.invariances,
    "distance": geometry.distance,
    "order": geometry.order,
    "awkward": extremes.awkward,
    "search": extremes.search,
    "long_search": extremes.long_search,
    "weights": calling.weights,
    "zero_weight": calling.zero_weight,
    "avg_factor": calling.avg_factor,
    "reductions": calling.reductions,
    "empty": calling.empty,
    "half": precision.half,
    "autocast": precision.autocast,
    "compile": transforms.compiles,
    "inductor": transforms.inductor,
    "vmap": transforms.functional_transforms,
    "memory": state.memory,
    "state": state.state,
    "errors": calling.errors,
    "text": card.text,
    "card": card.card,
}
# What takes many seconds a loss is left out unless asked for.
SLOW = ("long_search", "inductor")


@dataclass(frozen=True)
class Result:
    """What a check found.

    Attributes:
        check: its name in :data:`CHECKS`.
        status: ``"pass"``, ``"fail"`` or ``"skip"``.
        message: what was expected and what came, or why it was skipped.
    """

    check: str
    status: str
    message: str = ""


def run(case: Case, *, slow: bool = False) -> list[Result]:
    """Make every check of ``case``; one that raises anything else than it should has failed.

    Args:
        case: the loss.
        slow: make those of :data:`SLOW` too.
    """
    try:
        case.build()
    except Exception as error:
        message = f"cannot be built from {case.config()}: {type(error).__name__}: {error}"
        return [Result("text", "fail", message)]
    return [
        Result(name, "skip", "slow, made by --slow")
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


def registered(names: Iterable[str] | None = None) -> dict[str, type[Loss]]:
    """Return the registered losses by name, in alphabetical order."""
    return {
        name: cls
        for name, cls in sorted(MODELS.module_dict.items())
        if inspect.isclass(cls) and issubclass(cls, Loss) and (names is None or name in names)
    }


def references_of(*modules: ModuleType) -> dict[str, tuple[Reference, ...]]:
    """Collect ``REFERENCES`` of modules: name -> [(kwargs, function[, constants])].

    Raises:
        ValueError: a module has none.
    """
    found: dict[str, tuple[Reference, ...]] = {}
    for module in modules:
        if not hasattr(module, "REFERENCES"):
            raise ValueError(
                f"{module.__name__} has no REFERENCES = {{name: [(kwargs, function)]}}"
            )
        for name, entries in module.REFERENCES.items():
            found[name] = found.get(name, ()) + tuple(Reference(*entry) for entry in entries)
    return found


def explained(name: str) -> str:
    """Return the sentence that says what a check demands."""
    return (inspect.getdoc(CHECKS[name]) or "").partition("\n")[0]


def case_of(
    name: str,
    references: Mapping[str, tuple[Reference, ...]] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Case:
    """Return the case of a registered loss."""
    return Case(name, MODELS.module_dict[name], (references or {}).get(name, ()), inputs or {})
