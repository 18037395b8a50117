"""Versions of this package and of those that it depends on."""

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = {
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "mmengine-lite": ("mmengine-lite", "mmengine", "onedl-mmengine"),
    "hotcoco": ("hotcoco",),
}


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python and of the packages that compute results."""
    import det_losses

    found = {"det_losses": det_losses.__version__, "python": platform.python_version()}
    return found | {name: _version(names) for name, names in _PACKAGES.items()}


def _version(names: tuple[str, ...]) -> str:
    """Return the version of the first installed package; forks of mmengine have other names."""
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"
