"""Run the conformance suite on losses of this or another package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from det_losses.cli.arguments import add_imports, new_parser
from det_losses.cli.errors import user_errors
from det_losses.errors import InputError, counted
from det_losses.paths import cache_root

if TYPE_CHECKING:
    from det_losses.conformance import Case, Result

_MARKS = {"pass": "+", "fail": "F", "skip": "s"}


def main(argv: list[str] | None = None) -> int:
    """Print a table of checks and all failures; return 1 if a check failed."""
    args = _parser().parse_args(argv)
    with user_errors():
        cases = _cases(args)
    results: dict[str, list[Result]] = {}
    for case in cases:
        print(f"checking {case.name} ({len(results) + 1} of {len(cases)})", file=sys.stderr)
        results[case.name] = _suite().run(case, slow=args.slow)
    print(_report(results))
    return int(any(result.status == "fail" for each in results.values() for result in each))


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "check_losses",
        "Run the conformance suite on registered losses: formula, gradient, invariances, finite "
        "values for extreme inputs, compilation, weights, reductions, errors, docstring. By "
        "default it checks the losses of this package; with --import, those that the imported "
        "modules register.",
        "  det-losses check_losses --import my_losses --references my_references",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="check only these losses")
    add_imports(parser)
    parser.add_argument(
        "--references",
        nargs="+",
        default=[],
        metavar="MODULE",
        help="modules that define REFERENCES = {name: [(constructor arguments, function)]}, "
        "where function(pred, target, **parameters) computes the loss in numpy; and INPUTS = "
        "{name: function(n, generator)} for extra inputs that the suite does not know",
    )
    parser.add_argument(
        "--slow",
        action="store_true",
        help="also run the slow checks: more generated inputs, and compilation with inductor",
    )
    return parser


def _suite() -> ModuleType:
    try:
        configuration = import_module("hypothesis.configuration")
        configuration.set_hypothesis_home_dir(cache_root() / "hypothesis")  # else ./.hypothesis
        return import_module("det_losses.conformance")
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise InputError("check_losses needs hypothesis: pip install 'det-losses[check]'") from None


def _cases(args: argparse.Namespace) -> list[Case]:
    from det_losses.registry import import_modules

    suite = _suite()
    before = suite.registered_losses()
    import_modules(args.modules)
    modules = import_modules(args.references, "--references")
    references = suite.collect_references(*modules)
    inputs = {k: v for module in modules for k, v in getattr(module, "INPUTS", {}).items()}
    known = suite.registered_losses()
    _check_known("--references", references, known)
    _check_known("NAME", args.names, known)
    chosen = args.names or [
        name
        for name, cls in known.items()
        if not args.modules or name not in before or _defined_in(cls, args.modules)
    ]
    if not chosen:
        raise InputError(
            f"--import {' '.join(args.modules)} registers no loss: it needs a subclass of "
            "det_losses.losses.Loss with @det_losses.registry.MODELS.register_module()"
        )
    return [suite.case_of(name, references, inputs) for name in chosen]


def _check_known(what: str, names: Iterable[str], known: Mapping[str, type]) -> None:
    from det_losses.registry import MODELS, find

    for name in names:
        if name not in known:
            found = find(MODELS, name)
            raise InputError(f"{what} {name}: {found.__qualname__} is not a det_losses.losses.Loss")


def _defined_in(cls: type, modules: Sequence[str]) -> bool:
    return any(f"{cls.__module__}.".startswith(f"{module}.") for module in modules)


def _report(results: Mapping[str, Sequence[Result]]) -> str:
    from det_losses.report.markdown import table

    suite = _suite()
    checks = list(suite.CHECKS)
    rows = []
    for name, each in results.items():
        marks = {result.check: _MARKS[result.status] for result in each}
        rows.append([name, *(marks.get(check, "") for check in checks)])
    numbers = [str(number + 1) for number in range(len(checks))]
    lines = [table(["loss", *numbers], rows), "", "+ passed, F failed, s skipped"]
    width = max(map(len, checks))
    for number, check in zip(numbers, checks, strict=True):
        lines.append(f"{number:>2} {check:{width}}  {suite.explanation(check)}")
    return "\n".join([*lines, "", *_skips(results), *_failures(results), _total(results)])


def _skips(results: Mapping[str, Sequence[Result]]) -> list[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, each in results.items():
        for result in each:
            if result.status == "skip":
                reasons.setdefault((result.check, result.message), []).append(name)
    return [
        f"skipped {check}: {message} ({_few(names)})" for (check, message), names in reasons.items()
    ]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} losses"


def _failures(results: Mapping[str, Sequence[Result]]) -> list[str]:
    return [
        f"FAILED {name}, {result.check}: {result.message}"
        for name, each in results.items()
        for result in each
        if result.status == "fail"
    ]


def _total(results: Mapping[str, Sequence[Result]]) -> str:
    statuses = [result.status for each in results.values() for result in each]
    counts = ", ".join(
        f"{statuses.count(status)} {word}"
        for status, word in (("pass", "passed"), ("fail", "failed"), ("skip", "skipped"))
    )
    return f"{counted(len(results), 'loss')}: {counts}"
