"""Where the shipped configs are, and how a config is found by name."""

import os
import sys
from pathlib import Path

from det_losses.errors import MissingFileError, did_you_mean

_PACKAGE = Path(__file__).resolve().parent


def configs_root() -> Path:
    """Return the directory of the shipped configs.

    ``pip install .`` puts it inside the package. In a checkout or an editable install it is next to
    the package.

    Raises:
        MissingFileError: neither exists.
    """
    for root in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if (root / "_base_").is_dir():
            return root
    raise MissingFileError(
        f"no configs/ with a _base_ folder in or next to {_PACKAGE}: the installation is incomplete"
    )


def shipped_configs() -> list[str]:
    """Return the names of all shipped configs, relative to :func:`configs_root`, without .py."""
    root = configs_root()
    found = (path.relative_to(root) for path in root.rglob("*.py"))
    return sorted(
        path.with_suffix("").as_posix()
        for path in found
        if path.parts[0] != "_base_" and path.name != "__init__.py"
    )


def find_config(name: str | os.PathLike[str], *, shipped: bool = False) -> Path:
    """Return the file of a config.

    Args:
        name: a path, or a name relative to :func:`configs_root`, with or without ``.py``.
        shipped: whether only a shipped config may be found.

    Raises:
        MissingFileError: there is no such file; the message gives the nearest shipped names.
    """
    given = Path(name)
    for base in (configs_root(),) if shipped else (Path(), configs_root()):
        for path in (base / given, base / f"{given}.py"):
            if path.is_file():
                return path
    names = shipped_configs()
    wanted = given.as_posix().removesuffix(".py").removeprefix("configs/")
    same = [known for known in names if Path(known).name == Path(wanted).name]
    hint = did_you_mean(wanted, same or names, "`list_configs` shows them all.")
    raise MissingFileError(
        f"config {str(name)!r}: no such file, and no config of that name in {configs_root()}. "
        f"{hint}"
    )


def import_root() -> Path:
    """Return the directory that contains the package."""
    return _PACKAGE.parent


def python_path() -> str:
    """Return the PYTHONPATH of a child process, in which this package can be imported."""
    return os.pathsep.join(filter(None, [str(import_root()), os.environ.get("PYTHONPATH")]))


def safe_path() -> dict[str, str]:
    """Return the variable with which ``python -m`` does not search the current folder first.

    There, a file of the user may have the name of a module of the standard library. The result is
    empty if this process searches the current folder first, too; a console script does not.
    Python 3.10 ignores the variable.
    """
    return {} if sys.path[0] in ("", os.getcwd()) else {"PYTHONSAFEPATH": "1"}


def cache_root() -> Path:
    """Return the user's folder for data that can be made again: ``~/.cache/det_losses``.

    ``DET_LOSSES_CACHE`` replaces the folder, and ``XDG_CACHE_HOME`` replaces ``~/.cache``.
    """
    given = os.environ.get("DET_LOSSES_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(given or os.path.join(user, "det_losses"))
