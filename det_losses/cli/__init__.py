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

from det_losses.cli.errors import user_errors

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
_STORE_PATHS = ("train", "compare_losses", "report")  # write paths into files
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
        with user_errors():
            try:
                return _run(sys.argv[1:] if argv is None else argv)
            finally:
                if sys.stdout:
                    sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return 141
    except SystemExit:
        try:
            sys.stdout.flush()
        except OSError:  # a full disk
            _discard_output()
        raise
    except (Exception, KeyboardInterrupt) as error:
        # Extensions of C can turn the interrupt of an import into another exception.
        if interrupted or isinstance(error, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            return 130
        if isinstance(error, MemoryError):
            print("error: not enough memory; `ulimit -v` shows the limit, if any", file=sys.stderr)
            return 2
        if isinstance(error, ImportError) and "failed to map segment" in str(error):
            causes = "not enough memory (`ulimit -v`), or a file system mounted with noexec"
            print(f"error: {error}: {causes}", file=sys.stderr)
            return 2
        raise
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
    wants_help = {"-h", "--help"} & set(arguments)
    if not wants_help and (fault := _environment_fault(name, arguments)):
        print(f"error: {fault}", file=sys.stderr)
        return 2
    return importlib.import_module(f"det_losses.cli.{name}").main(arguments[1:])


def _environment_fault(tool: str, arguments: list[str]) -> str | None:
    """Return why a tool cannot run here, where torch or mmengine would give a misleading error."""
    try:
        current = os.getcwd()
    except FileNotFoundError:
        return "the current folder was deleted; change to another one"
    if tool in _STORE_PATHS:
        for what, text in (("current folder", current), *(("argument", a) for a in arguments)):
            if text != text.encode(errors="replace").decode():
                return f"the {what} {text!a} is not valid UTF-8; rename the file or folder"
    home = os.environ.get("HOME", os.path.expanduser("~"))
    if not os.path.isabs(home) and not os.path.isabs(os.environ.get("XDG_CACHE_HOME", "")):
        return "no home folder; set the environment variable HOME to an absolute path"
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        return (
            f"{error.strerror}. Free some space on the disk, or set the environment variable "
            "TMPDIR to a folder that can be written"
        )
    return None


def _discard_output() -> None:
    """Discard what is still buffered, which cannot be written when the interpreter exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
