"""What lies in a folder of images, `train/<class>/*` and so on or `<class>/*`, before any of it is decoded.

Hidden files and what desktops leave behind (.DS_Store, Thumbs.db) are passed over. Classes are in the order of their
names, and so are the files of a class, so that a listing is the same on every machine.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.errors import DataError

SPLITS = ("train", "val", "test")
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}
_LISTED = 10  # names in a message
_MEANT = {"train": ("training",), "val": ("valid", "validation", "eval", "dev"), "test": ("testing",)}


@dataclass(frozen=True)
class Files:
    """The files of one split. labels: each file's place in `Listing.classes`.

    names: their paths as text, as every job lists them and few decode them: `Path` takes 10 us for each.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    status: tuple[os.stat_result, ...]

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        return tuple(map(Path, self.names))

    def named(self) -> Iterable[tuple[str, os.stat_result]]:
        return zip(self.names, self.status, strict=True)

    def chosen(self, indices: Iterable[int]) -> Files:
        """Returns those of some indices."""
        kept = [(self.names[index], self.labels[index], self.status[index]) for index in indices]
        names, labels, status = zip(*kept, strict=True) if kept else ((), (), ())
        return Files(names, labels, status)


@dataclass(frozen=True)
class Listing:
    root: Path
    classes: tuple[str, ...]
    splits: dict[str, Files]  # by their names, in the order of `SPLITS`; one of them is `train`
    notes: tuple[str, ...]


def list_folder(root: Path, shares: Mapping[str, float]) -> Listing:
    """Reads names, sizes and times only. Raises DataError, saying what was expected and what is there.

    shares: of the images that are to be held out, by the split that they go to.
    """
    notes: list[str] = []
    folders = _split_folders(root, shares)
    classes = {split: _folders(folder, notes) for split, folder in folders.items()}
    for split in [split for split in folders if split != "train"]:
        _require_same_classes(root, classes["train"], classes[split], split)
    _require_classes(folders["train"], classes["train"])
    _check_names(root, classes["train"])
    files = {split: _files(folder, classes["train"], notes) for split, folder in folders.items()}
    return Listing(root, tuple(classes["train"]), files, tuple(notes))


def _split_folders(root: Path, shares: Mapping[str, float]) -> dict[str, Path]:
    """The folder of each split that there is; where none is called train and shares are given, the root is that."""
    _require_folder(root)
    there = sorted(entry.name for entry in _entries(root))
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if "train" not in folders and shares and not folders:
        return {"train": root}
    if twice := [split for split in shares if split in folders]:
        raise DataError(f"{root} has a folder {twice[0]!r} already; leave data.split.{twice[0]} out")
    missing = "train" if "train" not in folders else "" if shares or len(folders) > 1 else "test"
    if missing:
        meant = [name for name in there if name.lower() in _MEANT[missing]]
        is_flat = missing == "train" and not meant and sum((root / name).is_dir() for name in there) > 1
        hint = "\nif its folders are the classes, set data.split: {val: 0.1, test: 0.1}" if is_flat else ""
        raise DataError(
            f"{root} has no folder '{missing}'{_suggestion(missing, meant or there)}\n"
            f"expected: {root}/train/<class>/<images>, and {root}/val/..., {root}/test/... or both\n"
            f"there is: {abbreviated(there) or 'nothing'}{hint}"
        )
    return folders


def _require_folder(root: Path) -> None:
    if not root.is_dir():
        near = root.parent
        there = sorted(entry.name for entry in _entries(near) if _is_folder(entry)) if near.is_dir() else []
        raise DataError(f"data.path: there is no folder {root}{_suggestion(root.name, there)}")


def _check_names(root: Path, classes: list[str]) -> None:
    if len(classes) == 1:
        raise DataError(f"{root} has one class only, {classes[0]!r}: there is nothing to tell apart")
    for name in classes:
        if not name.isprintable():  # half surrogates, where a name is not UTF-8, are not
            raise DataError(f"{root}: the folder {name!a} cannot be a class: its name is not text; rename it")


def _require_classes(train: Path, classes: list[str]) -> None:
    if not classes:
        there = sorted(entry.name for entry in _entries(train))
        raise DataError(
            f"{train} has no folders, one a class; there is: {abbreviated(there) or 'nothing'}\n"
            f"expected: {train}/<class>/<images>"
        )


def _require_same_classes(root: Path, train: list[str], others: list[str], name: str) -> None:
    if not train:
        return
    for split, missing in ((name, sorted(set(train) - set(others))), ("train", sorted(set(others) - set(train)))):
        if missing:
            raise DataError(
                f"the classes of {root}/train and {root}/{name} differ: {split} has no folder for "
                f"{abbreviated(missing)}"
            )


def _files(split: Path, classes: list[str], notes: list[str]) -> Files:
    names: list[str] = []
    labels: list[int] = []
    status: list[os.stat_result] = []
    for label, name in enumerate(classes):
        folder = split / name
        entries = sorted(_entries(folder), key=lambda entry: entry.name)
        files = [entry for entry in entries if not _is_folder(entry)]
        if not files:
            raise DataError(f"{folder} has no images; remove the class or add some")
        if nested := [entry.name for entry in entries if _is_folder(entry)]:
            notes.append(f"folders inside {folder} are not read: {abbreviated(nested)}")
        names += [entry.path for entry in files]
        status += map(_status, files)
        labels += [label] * len(files)
    return Files(tuple(names), tuple(labels), tuple(status))


def _folders(split: Path, notes: list[str]) -> list[str]:
    entries = _entries(split)
    if beside := sorted(entry.name for entry in entries if not _is_folder(entry)):
        notes.append(f"files beside the class folders of {split} are not read: {abbreviated(beside)}")
    return sorted(entry.name for entry in entries if _is_folder(entry))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if not e.name.startswith(".") and e.name.lower() not in _LITTER]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    """Of a link that leads nowhere, its own: as with a pipe, reading it fails, and so it is named."""
    try:
        return entry.stat()
    except OSError:
        return entry.stat(follow_symlinks=False)


def _suggestion(name: str, there: list[str]) -> str:
    known = _MEANT.get(name, ())
    meant = [other for other in there if other.lower() in known] or difflib.get_close_matches(name, there, 1, 0.6)
    return f"; did you mean '{meant[0]}'?" if meant else ""


def abbreviated(names: list[str]) -> str:
    """The first ten names, and how many more there are."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
