"""The command line: ``det-losses TOOL ...``, or ``python -m det_losses TOOL ...``."""

import importlib
import sys

from det_losses.cli.arguments import new_parser
from det_losses.errors import did_you_mean

TOOLS = {
    "train": "train one config",
    "test": "evaluate a checkpoint",
    "compare_losses": "train one config with several losses and compare their mAP (also: compare)",
    "check_data": "look at data before training: suspicions, anchors, pictures (also: browse)",
    "report": "write the report of one or more stored comparisons",
    "compare_detections": "compare COCO result files from any framework",
    "list_losses": "list all losses, or show the card of one: formula, parameters, paper",
    "check_losses": "run the conformance suite on losses, including your own",
    "simulate": "move anchors to targets under several losses, as in the DIoU paper",
    "list_configs": "list the shipped configs",
    "make_subset": "write a small subset of a COCO dataset",
}
_ALSO = {"compare": "compare_losses", "browse": "check_data"}


def main(argv: list[str] | None = None) -> int:
    """Run the tool named by the first argument with the remaining arguments."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["--version"]:
        new_parser("", "", "").parse_args(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    name = arguments[0].replace("-", "_")
    name = _ALSO.get(name, name)
    if name not in TOOLS:
        hint = did_you_mean(name, [*TOOLS, *_ALSO])
        print(f"error: no tool {arguments[0]!r}. {hint}\n\n{_usage()}", file=sys.stderr)
        return 2
    return importlib.import_module(f"det_losses.cli.{name}").main(arguments[1:])


def _usage() -> str:
    lines = [f"  {name:18} {what}" for name, what in TOOLS.items()]
    return "\n".join(
        [
            "usage: det-losses TOOL [options]; see det-losses TOOL --help, det-losses --version",
            "",
            *lines,
        ]
    )
