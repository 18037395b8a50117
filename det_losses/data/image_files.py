"""Find the image files that an annotation file names, and nothing outside their folder."""

import os
import unicodedata
from collections.abc import Sequence
from urllib.parse import unquote

from det_losses.errors import InputError, MissingFileError, agreed, counted, did_you_mean

_COMPARED = 5000  # names of a folder in which a near miss is looked for


def locate_images(
    image_dir: str,
    names: Sequence[str],
    allow_outside: bool = False,
    skip_missing: bool = False,
    roots: Sequence[str | os.PathLike[str]] = (),
) -> tuple[list[str], list[str]]:
    r"""Find files by the names in an annotation file.

    A file with exactly that name is preferred. Otherwise, names are compared after conversion of
    ``\`` to ``/``, of Unicode to its composed form (NFC), of ``%20`` and the like, and of the
    extension to lower case.

    Args:
        image_dir: the folder to which names are relative.
        names: ``file_name`` of each image.
        allow_outside: whether files outside the folder may be read: by ``..``, by an absolute path
            or by a symbolic link in the folder.
        skip_missing: whether to return the names of missing files as they are.
        roots: the folders below ``image_dir`` that files must be in; none: ``image_dir``.

    Returns:
        The names as found, relative to ``image_dir``; and a sentence if some are spelled
        differently.

    Raises:
        MissingFileError: no such folder, or files are missing; the first one is named with a hint.
        InputError: files are outside the folder, or two names lead to one file.
    """
    if not os.path.isdir(image_dir):
        raise MissingFileError(
            f"{image_dir}: no such image folder (relative paths start at {os.getcwd()})"
        )
    folder = _Folder(image_dir)
    found = [folder.find(name) for name in names]
    missing = [name for name, file in zip(names, found, strict=True) if file is None]
    if missing and not skip_missing:
        raise MissingFileError(
            f"{image_dir}: {len(missing)} of {counted(len(names), 'image')} "
            f"{agreed(len(missing), 'are')} missing, the first is "
            f"{missing[0]}. {folder.hint(missing[0])}Are the file names in the annotation file "
            "relative to this folder?"
        )
    found = [name if file is None else file for name, file in zip(names, found, strict=True)]
    places = [folder.place(file) for file in found]
    if not allow_outside:
        _check_inside(roots or [image_dir], names, places)
    _check_distinct(image_dir, names, places)
    changed = [(name, file) for name, file in zip(names, found, strict=True) if name != file]
    notes = []
    if changed:
        examples = "; ".join(f"{name} is {file}" for name, file in changed[:3])
        notes.append(f"file names spelled differently on disk ({len(changed)}): {examples}")
    return found, notes


class _Folder:
    """The files below a folder; each subfolder is listed once."""

    def __init__(self, path: str) -> None:
        self.path, self.real = path, os.path.realpath(path)
        self._listed: dict[str, dict[str, bool]] = {}
        self._spellings: dict[str, dict[str, list[str]]] = {}
        self._real_folders: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        """Return the name of a file as it is on disk; None if it does not exist."""
        folder, base = os.path.split(name)
        return name if base and base in self._list(folder) else self._find_spelling(name)

    def place(self, name: str) -> str:
        """Return the path of a file in which symbolic links are resolved."""
        folder, base = os.path.split(name)
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(os.path.join(self.path, folder))
        path = os.path.join(self._real_folders[folder], base)
        return os.path.realpath(path) if self._list(folder).get(base) else path

    def hint(self, name: str) -> str:
        """Return a question that names the file that is probably meant, or nothing."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        base = parts[-1] if parts else name
        if len(parts) > 1 and parts[0] == os.path.basename(self.real):
            above = os.path.join(os.path.dirname(self.real), *parts)
            if os.path.exists(above):
                return f"Is the image folder {os.path.dirname(self.real)}? "
        if len(parts) > 1 and base in self._list(""):
            return f"{base} is directly in this folder: remove the rest of its 'file_name'. "
        folder = os.path.join(*parts[:-1], "") if len(parts) > 1 else ""
        known = [f"{folder}{other}" for other in list(self._list(folder))[:_COMPARED]]
        hint = did_you_mean(f"{folder}{base}", known)
        return f"{hint} " if hint else ""

    def _find_spelling(self, name: str) -> str | None:
        """Follow the parts of a path, each by its name or by the only other spelling of it."""
        parts = name.replace("\\", "/").split("/")
        folder = "/" if name.startswith("/") else ""
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            if part in ("", ".", ".."):
                folder = os.path.join(folder, part)
                continue
            if part not in self._list(folder):
                others = self._spelled(folder).get(_spelling(part), [])
                if len(others) != 1:
                    return None
                part = others[0]
            folder = os.path.join(folder, part)
            if last:
                return folder
        return None

    def _list(self, folder: str) -> dict[str, bool]:
        """Return the names in a folder and whether each is a symbolic link."""
        if folder not in self._listed:
            try:
                with os.scandir(os.path.join(self.path, folder)) as entries:
                    self._listed[folder] = {entry.name: entry.is_symlink() for entry in entries}
            except OSError:
                self._listed[folder] = {}
        return self._listed[folder]

    def _spelled(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._spellings:
            spelled: dict[str, list[str]] = {}
            for name in self._list(folder):
                spelled.setdefault(_spelling(name), []).append(name)
            self._spellings[folder] = spelled
        return self._spellings[folder]


def _spelling(name: str) -> str:
    stem, extension = os.path.splitext(unicodedata.normalize("NFC", unquote(name)))
    return stem + extension.lower()


def _check_inside(
    roots: Sequence[str | os.PathLike[str]], names: Sequence[str], places: Sequence[str]
) -> None:
    inside = tuple(os.path.join(os.path.realpath(root), "") for root in roots)
    outside = [
        (name, place)
        for name, place in zip(names, places, strict=True)
        if not place.startswith(inside)
    ]
    if outside:
        name, place = outside[0]
        raise InputError(
            f"{', '.join(map(str, roots))}: {len(outside)} of {counted(len(names), 'image')} "
            f"{agreed(len(outside), 'are')} outside this folder, the first is {name} ({place}). "
            "If these are your images, add "
            "--allow-outside (allow_outside=True of the dataset)."
        )


def _check_distinct(image_dir: str, names: Sequence[str], places: Sequence[str]) -> None:
    if len(set(places)) == len(places):
        return
    first: dict[str, str] = {}
    repeated = []
    for name, place in zip(names, places, strict=True):
        place = os.path.normpath(place)
        if place in first:
            repeated.append((first[place], name))
        first.setdefault(place, name)
    if repeated:
        one, other = repeated[0]
        both = f"{one} and {other}" if one != other else f"{one}"
        raise InputError(
            f"{image_dir}: {counted(len(repeated), 'file')} listed twice in 'images', the first is "
            f"{both}. Two entries of one file lack each other's boxes: merge them into one image. "
            "To repeat images in training, use RepeatDataset."
        )
