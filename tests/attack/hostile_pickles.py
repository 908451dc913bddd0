"""Pickles that run code when they are loaded, and the files that a checkpoint may come in: zip, legacy, tar, bare.

A payload makes a file, the witness. None is loaded but by `pickle` itself, in a process of its own, which shows that it
works.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import marshal
import os
import pickle
import struct
import subprocess
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.training.checkpoint import SEAL

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # that legacy files of torch begin with


class Call:
    """Is pickled as a call: what loads it calls the function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __call__(self) -> None:
        """What is called must look as if it could be."""

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class Filled:
    """Is pickled as a list that is filled, or an object whose state is set, with what is called then."""

    def __init__(self, reduced: tuple[Any, ...]) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def payloads(witness: Path) -> dict[str, Any]:
    """Objects that are pickled into code, by what runs it."""
    shell = f"touch {witness}"
    python = f"open({str(witness)!r}, 'w').close()"
    system = Call(os.system, shell)
    code = marshal.dumps(compile(python, "x", "exec"))
    nested = pickle.dumps(system)
    return {
        "os.system": system,
        "eval": Call(eval, python),
        "exec": Call(exec, python),
        "subprocess": Call(subprocess.call, ["touch", str(witness)]),
        "Path.touch": Call(Path.touch, witness),
        "getattr of an import": Call(Call(getattr, Call(__import__, "os"), "system"), shell),
        "getattr of builtins": Call(Call(getattr, Call(__import__, "builtins"), "eval"), python),
        "map": Call(list, Call(map, os.system, [shell])),
        "partial": Call(functools.partial(os.system, shell)),
        "code": Call(Call(Call(getattr, Call(__import__, "types"), "FunctionType"), Call(marshal.loads, code), {})),
        "pickle.loads": Call(pickle.loads, nested),
        "torch.load": Call(
            functools.partial(torch.load, weights_only=False), Call(io.BytesIO, in_legacy_file(nested, b""))
        ),
        "as an argument of torch's": Call(torch._utils._rebuild_parameter, system, True, {}),
        "as a type of torch's": Call(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (shell,), {}),
        "as an item": Filled((list, (), None, iter([system]))),
        "as a value": Filled((dict, (), None, None, iter([("a", system)]))),
        "as a state": Filled((functools.partial, (print,), (os.system, (shell,), {}, system))),
    }


def opcodes(witness: Path) -> dict[str, bytes]:
    """Pickles that no pickler writes."""
    shell = f"touch {witness}".encode()
    text = b"S'" + shell + b"'\n"
    short = b"\x8c" + bytes([len(shell)]) + shell
    return {
        "GLOBAL": b"cposix\nsystem\n(" + text + b"tR.",
        "INST": b"(" + text + b"iposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\n" + text + b"o.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + short + b"\x85R.",
        "NEWOBJ": b"\x80\x02cbuiltins\nlist\ncbuiltins\nmap\ncposix\nsystem\n(" + text + b"l\x86\x81\x85R.",
        "in what is persistent": b"\x80\x02(X\x07\x00\x00\x00storagecposix\nsystem\n" + text + b"\x85RtQ.",
    }


def pickles(witness: Path) -> dict[str, bytes]:
    """All of them; objects alone, and where a checkpoint has its metrics or its weights."""
    found = opcodes(witness)
    for name in payloads(witness):
        alone, metric, weight = (payloads(witness)[name] for _ in range(3))  # anew: an iterator is good for once
        found[name] = pickle.dumps(alone, protocol=2)
        found[f"{name}, as a metric"] = pickle.dumps({"format": 1, "metrics": {"test/accuracy": metric}}, protocol=2)
        found[f"{name}, as a weight"] = pickle.dumps({"format": 1, "model": {"a": weight}}, protocol=4)
    return found


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> None:
        """Nothing is persistent here."""


def load_without_care(pickled: bytes) -> None:
    """What a careless program does. What is loaded need not be of any use."""
    with contextlib.suppress(Exception):
        _Unpickler(io.BytesIO(pickled)).load()


# Files, of a pickle and a real checkpoint


def in_zip(pickled: bytes, real: bytes) -> bytes:
    """The checkpoint with the pickle in place of its own."""
    return _rezipped(real, lambda name: pickled if name.endswith("/data.pkl") else None)


def in_torchscript(pickled: bytes, real: bytes) -> bytes:
    """As a network that was compiled, which torch recognizes by one more file."""
    return _rezipped(real, lambda name: pickled if name.endswith("/data.pkl") else None, extra=pickled)


def in_second_entry(pickled: bytes, real: bytes) -> bytes:
    """Twice under one name: what one reader checks, another may not read."""
    return _rezipped(real, lambda _: None, again=pickled)


def in_legacy_file(pickled: bytes, real: bytes) -> bytes:  # noqa: ARG001
    head = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    return b"".join([*(pickle.dumps(part, protocol=2) for part in (MAGIC, PROTOCOL, head)), pickled, pickle.dumps([])])


def in_legacy_head(pickled: bytes, real: bytes) -> bytes:  # noqa: ARG001
    return pickle.dumps(MAGIC, protocol=2) + pickled


def in_tar(pickled: bytes, real: bytes) -> bytes:  # noqa: ARG001
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in ("storages", "tensors", "pickle", "sys_info"):
            entry = tarfile.TarInfo(name)
            entry.size = len(pickled)
            archive.addfile(entry, io.BytesIO(pickled))
    return content.getvalue()


def bare(pickled: bytes, real: bytes) -> bytes:  # noqa: ARG001
    return pickled


FILES: tuple[Callable[[bytes, bytes], bytes], ...] = (
    *(in_zip,) * 6,  # as they should be: what is in them is all that is wrong
    *(in_torchscript, in_second_entry, in_legacy_file, in_legacy_head, in_tar, bare),
)


def _rezipped(
    real: bytes, content_of: Callable[[str], bytes | None], *, extra: bytes = b"", again: bytes = b""
) -> bytes:
    content = io.BytesIO()
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(io.BytesIO(real)) as source,
        zipfile.ZipFile(content, "w") as target,
    ):
        warnings.simplefilter("ignore", UserWarning)  # of a name that is there twice
        for name in source.namelist():
            target.writestr(name, content_of(name) or source.read(name))
        folder = source.namelist()[0].split("/")[0]
        if extra:
            target.writestr(f"{folder}/constants.pkl", extra)
        if again:
            target.writestr(f"{folder}/data.pkl", again)
    return content.getvalue()


def sealed(content: bytes) -> bytes:
    """With the hash that says that the file is as it was written."""
    head = content[:-2] if content[-2:] == b"\0\0" else content
    comment = SEAL + hashlib.sha256(head).hexdigest().encode()
    return head + struct.pack("<H", len(comment)) + comment
