"""The command line: ``det-losses TOOL ...``, or ``python -m det_losses TOOL ...``.

This module imports next to nothing, so that an interrupt while torch is imported reaches `main`.
"""

import gc
import importlib
import io
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TOOLS = {
    "train": "train one config",
    "test": "evaluate a checkpoint",
    "predict": "detect objects in images, folders and videos with a checkpoint",
    "export": "convert a checkpoint to ONNX",
    "compare_losses": "train one config with several losses and compare their mAP (also: compare)",
    "check_data": "look at data before training: suspicions, anchors, pictures (also: browse)",
    "report": "write the report of one or more stored comparisons",
    "compare_detections": "compare COCO result files from any framework",
    "list_losses": "list all losses, or show the card of one: formula, parameters, paper",
    "plot_losses": "draw value and gradient of losses, including your own, as SVG and PNG",
    "check_losses": "run the conformance suite on losses, including your own",
    "simulate": "move anchors to targets under several losses, as in the DIoU paper",
    "list_configs": "list the shipped configs",
    "make_subset": "write a small subset of a COCO dataset",
}
_ALSO = {"compare": "compare_losses", "browse": "check_data"}


def main(argv: list[str] | None = None) -> int:
    """Run the tool named by the first argument with the remaining arguments.

    Returns:
        The exit status: 130 after Ctrl-C, with one line on stderr; 141, as after SIGPIPE, if the
        reader of the output has ended, as in ``det-losses list_losses | head``.
    """
    _prepare_streams()
    interrupted = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    former = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    replaced = in_main_thread and former is signal.default_int_handler
    if replaced:
        signal.signal(signal.SIGINT, interrupt)
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except (MemoryError, ImportError) as error:
        if isinstance(error, ImportError) and "failed to map segment" not in str(error):
            raise
        print("error: not enough memory; see `ulimit -v` for the limit, if any", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # What is still buffered cannot be written when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (Exception, KeyboardInterrupt) as error:
        # Extensions of C can turn the interrupt of an import into another exception.
        if not interrupted and not isinstance(error, KeyboardInterrupt):
            raise
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        if replaced:
            signal.signal(signal.SIGINT, former)


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import torch and what needs it without garbage collection.

    An import creates a million objects that stay. Each full collection would visit all of them,
    which takes 0.2 s: a quarter of the import of torch and torchvision. Afterwards, collections
    leave these objects out.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _run(arguments: list[str]) -> int:
    from det_losses.cli.arguments import new_parser

    if arguments[:1] == ["--version"]:
        new_parser("", "", "").parse_args(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    name = arguments[0].replace("-", "_")
    name = _ALSO.get(name, name)
    if name not in TOOLS:
        from det_losses.errors import did_you_mean

        hint = did_you_mean(name, [*TOOLS, *_ALSO])
        print(f"error: no tool {arguments[0]!r}. {hint}\n\n{_usage()}", file=sys.stderr)
        return 2
    if fault := _environment_fault(arguments):
        print(f"error: {fault}", file=sys.stderr)
        return 2
    from det_losses.cli.errors import user_errors

    with user_errors():
        return importlib.import_module(f"det_losses.cli.{name}").main(arguments[1:])


def _environment_fault(arguments: list[str]) -> str | None:
    """Return what would make torch, mmengine or any tool fail with a message about itself."""
    try:
        current = os.getcwd()
    except FileNotFoundError:
        return "the current folder was deleted; change to another one"
    for what, name in (("current folder", current), *(("argument", each) for each in arguments)):
        if not name.isascii() and "\\udc" in ascii(name):
            return f"the {what} {name!a} is not valid UTF-8; rename the file or folder"
    if not os.path.isabs(os.environ.get("HOME", os.path.expanduser("~"))):
        return "no home folder; set the environment variable HOME to an absolute path"
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        return (
            f"{error.strerror}. Free some space on the disk, or set the environment variable "
            "TMPDIR to a folder that can be written"
        )
    return None


def _prepare_streams() -> None:
    """Replace closed streams by the null device, and escape what the terminal cannot print."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # takes the free file descriptor, too
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _usage() -> str:
    lines = [f"  {name:18} {what}" for name, what in TOOLS.items()]
    return "\n".join(
        [
            "usage: det-losses TOOL [options]; see det-losses TOOL --help, det-losses --version",
            "",
            *lines,
        ]
    )
