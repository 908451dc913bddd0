"""What lies in a folder of images, `train/<class>/*` and `test/<class>/*`, before any of it is decoded.

Hidden files and what desktops leave behind (.DS_Store, Thumbs.db) are passed over. Classes are in the order of their
names, and so are the files of a class, so that a listing is the same on every machine.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError

SPLITS = ("train", "test")
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}
_LISTED = 10  # names in a message
_MEANT = {"train": ("training",), "test": ("testing", "val", "valid", "validation", "eval")}


@dataclass(frozen=True)
class Files:
    """The files of one split. labels: each file's place in `Listing.classes`."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    status: tuple[os.stat_result, ...]

    def named(self) -> Iterable[tuple[Path, os.stat_result]]:
        return zip(self.paths, self.status, strict=True)


@dataclass(frozen=True)
class Listing:
    root: Path
    classes: tuple[str, ...]
    train: Files
    test: Files
    notes: tuple[str, ...]

    @property
    def splits(self) -> tuple[Files, Files]:
        return self.train, self.test


def list_folder(root: Path) -> Listing:
    """Reads names, sizes and times only. Raises DataError, saying what was expected and what is there."""
    notes: list[str] = []
    _require_splits(root)
    classes = {split: _folders(root / split, notes) for split in SPLITS}
    _require_same_classes(root, classes["train"], classes["test"])
    _check_names(root, classes["train"])
    train, test = (_files(root / split, classes["train"], notes) for split in SPLITS)
    return Listing(root, tuple(classes["train"]), train, test, tuple(notes))


def _require_splits(root: Path) -> None:
    if not root.is_dir():
        near = root.parent
        there = sorted(entry.name for entry in _entries(near) if _is_folder(entry)) if near.is_dir() else []
        raise DataError(f"data.path: there is no folder {root}{_suggestion(root.name, there)}")
    there = sorted(entry.name for entry in _entries(root))
    for split in SPLITS:
        if not (root / split).is_dir():
            meant = [name for name in there if name.lower() in _MEANT[split]]
            raise DataError(
                f"{root} has no folder '{split}'{_suggestion(split, meant or there)}\n"
                f"expected: {root}/train/<class>/<images> and {root}/test/<class>/<images>\n"
                f"there is: {abbreviated(there) or 'nothing'}"
            )


def _check_names(root: Path, classes: list[str]) -> None:
    if len(classes) == 1:
        raise DataError(f"{root} has one class only, {classes[0]!r}: there is nothing to tell apart")
    for name in classes:
        if not name.isprintable():  # half surrogates, where a name is not UTF-8, are not
            raise DataError(f"{root}: the folder {name!a} cannot be a class: its name is not text; rename it")


def _require_same_classes(root: Path, train: list[str], test: list[str]) -> None:
    if not train:
        there = sorted(entry.name for entry in _entries(root / "train"))
        raise DataError(
            f"{root}/train has no folders, one a class; there is: {abbreviated(there) or 'nothing'}\n"
            f"expected: {root}/train/<class>/<images>"
        )
    for split, missing in (("test", sorted(set(train) - set(test))), ("train", sorted(set(test) - set(train)))):
        if missing:
            raise DataError(
                f"the classes of {root}/train and {root}/test differ: {split} has no folder for {abbreviated(missing)}"
            )


def _files(split: Path, classes: list[str], notes: list[str]) -> Files:
    paths, labels, status = [], [], []
    for label, name in enumerate(classes):
        folder = split / name
        entries = _entries(folder)
        files = {entry.name: _status(entry) for entry in entries if not _is_folder(entry)}
        if not files:
            raise DataError(f"{folder} has no images; remove the class or add some")
        if nested := sorted(entry.name for entry in entries if _is_folder(entry)):
            notes.append(f"folders inside {folder} are not read: {abbreviated(nested)}")
        paths += [folder / file for file in sorted(files)]
        status += [files[file] for file in sorted(files)]
        labels += [label] * len(files)
    return Files(tuple(paths), tuple(labels), tuple(status))


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
