"""Code of a user's own, run: it is imported from the very text that was read, and that a job is frozen with.

Whatever goes wrong in it is told with the user's file and line.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Protocol

from pipeline.errors import OwnCodeError

BOM = "\ufeff"  # with which some editors begin a file


class Sources(Protocol):
    """Python files of a user's own, by their path in the folder, as `my_models.py`."""

    label: str
    """What people call the folder."""
    root: Path
    """Where the files lie; nothing is read from there to run them."""

    def read(self, file: str) -> str | None:
        """Returns the text of a file; None where there is none."""

    def has_folder(self, folder: str) -> bool:
        """Tells whether there are files below a folder, as `layers`."""

    def closure(self, file: str) -> dict[str, str]:
        """Returns a file and all that it imports from here, with their texts. Raises OwnCodeError."""


@dataclass(frozen=True, eq=False)
class OwnCode:
    """A class or a function of a user's own, and what its signature says."""

    sources: Sources
    module: str
    attribute: str
    file: str
    defined_in: str  # which may be another file, that this one imports it from
    line: int
    is_class: bool
    parameters: frozenset[str]
    takes_any: bool  # other arguments too, by name
    lists: frozenset[str]  # options whose values are lists to it, and not tuples

    def load(self) -> Any:
        """Returns the class or function. Raises OwnCodeError."""
        with self.telling_where():
            return getattr(_FINDER.importing(self.sources, self.module), self.attribute)

    def files(self) -> dict[str, str]:
        """Returns what it takes to load it: files with their texts, by their paths. Raises OwnCodeError."""
        return self.sources.closure(self.file)

    def taken(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns those of the arguments that it takes."""
        return {name: value for name, value in values.items() if self.takes_any or name in self.parameters}

    def with_lists(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns options, those that are to be lists as such."""
        return {
            name: list(value) if name in self.lists and value is not None else value for name, value in options.items()
        }

    @property
    def where(self) -> str:
        return f"{self.sources.label}/{self.defined_in}:{self.line}: {self.attribute}"

    @contextlib.contextmanager
    def telling_where(self, doing: str = "") -> Iterator[None]:
        """Turns whatever the code raises into an OwnCodeError that says where. doing: what it was called for."""
        try:
            yield
        except (OwnCodeError, GeneratorExit):
            raise
        except BaseException as error:  # whatever somebody's code may raise, SystemExit and our own errors too
            where = frame_in(error, self.sources) or f"{self.where}:"
            raise OwnCodeError(f"{where} {doing}{in_a_line(error)}") from error


def frame_in(error: BaseException, sources: Sources) -> str:
    """Says where in the user's files an error comes from, as `modules/my_models.py:7: in Net.forward:`; or nothing."""
    if isinstance(error, SyntaxError) and error.filename and (file := _relative(error.filename, sources)):
        return f"{sources.label}/{file}:{error.lineno}:"
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if file := _relative(frame.f_code.co_filename, sources):
            name = frame.f_code.co_qualname
            place = "" if name == "<module>" else f" in {name}:"
            return f"{sources.label}/{file}:{line}:{place}"
    return ""


def in_a_line(error: BaseException) -> str:
    """Returns the kind of an error and the first line of what it says."""
    if isinstance(error, SyntaxError):
        return error.msg
    try:
        said = str(error).strip().splitlines()
    except Exception:  # noqa: BLE001 - of somebody's class
        said = []
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _relative(filename: str, sources: Sources) -> str:
    path = Path(filename)
    return str(path.relative_to(sources.root)) if path.is_relative_to(sources.root) else ""


class _Finder(MetaPathFinder, InspectLoader):
    """Finds modules in the sources that are served now; those of others are forgotten."""

    sources: Sources | None = None

    def importing(self, sources: Sources, module: str) -> ModuleType:
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        if self.sources is not sources:
            for name in [name for name, loaded in sys.modules.items() if self._has_loaded(loaded)]:
                del sys.modules[name]
            self.sources = sources
        return importlib.import_module(module)

    def _has_loaded(self, module: ModuleType | None) -> bool:
        spec = getattr(module, "__spec__", None)
        return spec is not None and spec.loader_state is self

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        del target
        parent, _, _ = fullname.rpartition(".")
        if self.sources is None or (path is not None and not self._has_loaded(sys.modules.get(parent))):
            return None
        file, name = self._file(fullname), fullname.replace(".", "/")
        if file is None and not self.sources.has_folder(name):
            return None
        is_package = file is None or file.endswith("/__init__.py")
        spec = ModuleSpec(fullname, None if file is None else self, is_package=is_package)
        if file is not None:
            spec.origin, spec.has_location = str(self.sources.root / file), True
        if is_package:
            spec.submodule_search_locations = [str(self.sources.root / name)]
        spec.loader_state = self
        return spec

    def _file(self, fullname: str) -> str | None:
        assert self.sources is not None
        name = fullname.replace(".", "/")
        return next((f for f in (f"{name}.py", f"{name}/__init__.py") if self.sources.read(f) is not None), None)

    def is_package(self, fullname: str) -> bool:
        file = self._file(fullname)
        return file is not None and file.endswith("/__init__.py")

    def get_source(self, fullname: str) -> str | None:
        assert self.sources is not None
        file = self._file(fullname)
        return None if file is None else self.sources.read(file)

    def get_code(self, fullname: str) -> CodeType | None:
        assert self.sources is not None
        file, text = self._file(fullname), self.get_source(fullname)
        if file is None or text is None:
            return None
        code: CodeType = compile(text.removeprefix(BOM), str(self.sources.root / file), "exec", dont_inherit=True)
        return code


_FINDER = _Finder()
