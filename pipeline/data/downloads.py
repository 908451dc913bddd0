"""MNIST, FashionMNIST, CIFAR-10 and CIFAR-100, as torchvision downloads and checks them, in the datasets' folder.

What lies there already, in torchvision's layout, is used without a network.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import pickle
import socket
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pipeline.data.cache import Log
from pipeline.data.dataset import Contents, Found, digest
from pipeline.data.splits import Split
from pipeline.errors import DataError
from pipeline.home.paths import find_data

_TIMEOUT_S = 60.0
_TELL_EVERY_S = 5.0
_FAILURES = (
    *(OSError, RuntimeError, http.client.HTTPException),  # the network, a wrong checksum; URLError is an OSError
    *(EOFError, zlib.error, tarfile.TarError),  # a damaged archive
    *(ValueError, AssertionError, LookupError, TypeError, pickle.UnpicklingError),  # a damaged file
)


def read_mnist(datasets: Path, *, image_size: int | None, log: Log) -> Found:
    del image_size  # `load` resizes
    return _found("MNIST", datasets, Path("MNIST/raw"), log)


def read_fashion_mnist(datasets: Path, *, image_size: int | None, log: Log) -> Found:
    del image_size
    return _found("FashionMNIST", datasets, Path("FashionMNIST/raw"), log)


def read_cifar10(datasets: Path, *, image_size: int | None, log: Log) -> Found:
    del image_size
    return _found("CIFAR10", datasets, Path("cifar-10-batches-py"), log)


def read_cifar100(datasets: Path, *, image_size: int | None, log: Log) -> Found:
    del image_size
    return _found("CIFAR100", datasets, Path("cifar-100-python"), log)


def _found(dataset: str, datasets: Path, subfolder: Path, log: Log) -> Found:
    """`dataset`: the name of torchvision's class. `subfolder`: where it unpacks its files, below the folder given."""
    folder = find_data(datasets, subfolder)
    root = folder.parents[len(subfolder.parts) - 1]

    def state() -> str:
        if not folder.is_dir():
            return ""
        unpacked = sorted(file for file in folder.iterdir() if file.suffix != ".gz" and file.is_file())
        return digest((file.name, file.stat()) for file in unpacked) if unpacked else ""

    return Found(lambda: _decode(dataset, root, folder, log), state)


def _decode(dataset: str, root: Path, folder: Path, log: Log) -> Contents:
    import torchvision.datasets

    kind = getattr(torchvision.datasets, dataset)
    log(f"reading {dataset} from {root}, downloading what is missing")
    try:
        with network_timeout(_TIMEOUT_S), contextlib.redirect_stderr(Progress(log)):
            try:
                train, test = (kind(root, train=is_train, download=True) for is_train in (True, False))
            except _FAILURES:
                if not _remove_half_unpacked(folder):
                    raise
                train, test = (kind(root, train=is_train, download=True) for is_train in (True, False))
    except _FAILURES as error:
        raise DataError(_advice(kind, root, folder, error)) from error
    return Contents(_split(train), _split(test), tuple(train.classes))


class Progress(io.StringIO):
    """Stands in for the terminal that torchvision writes its progress to, many times a second."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log, self.told_at = log, time.monotonic()

    def write(self, text: str) -> int:
        if text.strip() and time.monotonic() - self.told_at > _TELL_EVERY_S:
            self.told_at = time.monotonic()
            self.log(f"downloading: {text.strip()}")
        return len(text)


def _split(dataset: Any) -> Split:
    """torchvision's grey datasets hold a tensor (N, H, W), its coloured ones an array (N, H, W, C)."""
    images = torch.as_tensor(dataset.data)
    return Split(images if images.ndim == 4 else images.unsqueeze(-1), torch.as_tensor(dataset.targets))


def _remove_half_unpacked(folder: Path) -> bool:
    """Removes what an interrupted job may have left half unpacked; its archive lies beside it. True if there was any.

    torchvision takes a file of MNIST that is there for a whole one, so that a retry would fail for ever.
    """
    unpacked = [file.with_suffix("") for file in folder.glob("*.gz") if file.with_suffix("").exists()]
    for file in unpacked:
        file.unlink()
    return bool(unpacked)


def _advice(kind: Any, root: Path, folder: Path, error: BaseException) -> str:
    if hasattr(kind, "resources"):
        archives = [(folder / name, md5) for name, md5 in kind.resources]
    else:
        archives = [(root / kind.filename, kind.tgz_md5)]
    reason = " ".join(str(error).split()) or type(error).__name__
    lines = [
        f"{kind.__name__} could not be downloaded or read: {reason}",
        "Where there is no network, put these files there yourself; they are checked and unpacked by the next job:",
        *(f"  {file}  (md5 {md5})" for file, md5 in archives),
    ]
    if folder.is_dir() and any(folder.iterdir()):
        lines.append(f"If {folder} holds damaged files, remove it first.")
    return "\n".join(lines)


@contextlib.contextmanager
def network_timeout(timeout_s: float) -> Iterator[None]:
    """torchvision gives its connections no timeout of their own; without one a silent server holds a job for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout_s)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
