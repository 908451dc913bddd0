"""Python files of a user's own, read and never run: their text, their syntax trees, and what imports what."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Self

from pipeline.errors import OwnCodeError
from pipeline.home import durable
from pipeline.home.paths import MODULE
from pipeline.jobfile.own_code import BOM
from pipeline.jobfile.own_values import Names
from pipeline.wording import nearest

MAX_FILE_BYTES = 256 * 1024
MAX_DEPTH = 10  # of names that are imported from where they are imported
NOT_TO_BE_HIDDEN = frozenset(sys.stdlib_module_names) | {
    *("pipeline", "torch", "torchvision", "tensorboard", "numpy", "PIL", "pydantic", "pydantic_core", "yaml", "typer"),
    *("matplotlib", "jinja2", "onnx", "onnxruntime", "safetensors"),
}

Definition = ast.ClassDef | ast.FunctionDef


class OwnFiles:
    """A folder of modules, or what of it is frozen with a job."""

    def __init__(self, label: str, root: Path, *, files: Mapping[str, str] | None = None) -> None:
        """label: what people call the folder. files: by their paths in it; None: what lies in `root`, when asked."""
        self.label, self.root, self.files = label, root, files
        self._texts: dict[str, str | None] = {}
        self._trees: dict[str, ast.Module] = {}

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        with contextlib.suppress(ValueError):
            return cls(str(folder.relative_to(Path.cwd())), folder)
        return cls(str(folder), folder)

    @classmethod
    def frozen(cls, files: Mapping[str, str]) -> Self:
        """Files of a job, of which nothing is run."""
        return cls("modules", Path("modules"), files=files)

    def read(self, file: str) -> str | None:
        """Returns the text of a file, always the same; None where there is none. Raises OwnCodeError."""
        if self.files is not None:
            return self.files.get(file)
        if not MODULE.fullmatch(file):
            return None
        if file not in self._texts:
            self._texts[file] = self._read(file)
        return self._texts[file]

    def _read(self, file: str) -> str | None:
        try:
            real = os.path.realpath(self.root / file)  # somebody's link, to another checkout, say
            return durable.read_small(real, limit=MAX_FILE_BYTES).decode()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            why = durable.in_words(error) if isinstance(error, OSError) else str(error)
            raise OwnCodeError(f"{self.label}/{file}: it cannot be read: {why}") from None

    def all_files(self) -> list[str]:
        """The paths of all Python files, sorted."""
        if self.files is not None:
            return sorted(self.files)
        found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*.py"))
        return sorted(filter(MODULE.fullmatch, found))

    def has_folder(self, folder: str) -> bool:
        if self.files is None:
            return (self.root / folder).is_dir()
        return any(file.startswith(f"{folder}/") for file in self.files)

    def file_of(self, module: str) -> str:
        path = module.replace(".", "/")
        for file in (f"{path}.py", f"{path}/__init__.py"):
            if self.read(file) is not None:
                return file
        known = [name.removesuffix(".py").replace("/", ".") for name in self.all_files()]
        raise OwnCodeError(f"there is no {path}.py in {self.label}" + (nearest(module, known) if known else ""))

    def tree(self, file: str) -> ast.Module:
        """A file's syntax tree. Raises OwnCodeError with the line where it has an error."""
        if file not in self._trees:
            self._trees[file] = self._parse(file)
        return self._trees[file]

    def _parse(self, file: str) -> ast.Module:
        text = self.read(file)
        if text is None:
            raise OwnCodeError(f"there is no {file} in {self.label}")
        top = file.removesuffix(".py").partition("/")[0]
        if top in NOT_TO_BE_HIDDEN:
            raise OwnCodeError(f"{self.label}/{file}: {top} is a module that others import; call yours something else")
        try:
            return ast.parse(text.removeprefix(BOM), file)
        except SyntaxError as error:
            line = f":{error.lineno}" if error.lineno else ""
            raise OwnCodeError(f"{self.label}/{file}{line}: {error.msg}") from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise OwnCodeError(f"{self.label}/{file}: it is no Python: {error}") from None

    def find(
        self, file: str, attribute: str, depth: int = 0, *, suitable: Callable[[], Sequence[str]] | None = None
    ) -> tuple[str, Definition]:
        """The file and the definition of a name, which may be imported from another file. Raises OwnCodeError.

        suitable: gives the names that may be suggested; all that are defined, if not given.
        """
        defined = [node for node in self.tree(file).body if isinstance(node, Definition)]
        for node in reversed(defined):
            if node.name == attribute:
                return file, node
        if depth < 10 and (origin := self._imported(file).get(attribute)):
            return self.find(*origin, depth + 1, suitable=suitable)
        known = [node.name for node in defined if not node.name.startswith("_")]
        hint = nearest(attribute, known, among=suitable() if suitable else None) if known else ""
        raise OwnCodeError(f"{self.label}/{file} defines no class or function {attribute}{hint}")

    def _imported(self, file: str) -> dict[str, tuple[str, str]]:
        """The names that a file imports from others here: the file and the name there."""
        found: dict[str, tuple[str, str]] = {}
        for node in self.tree(file).body:
            if isinstance(node, ast.ImportFrom) and (source := self.as_file(_module_of(node, file))):
                found |= {alias.asname or alias.name: (source, alias.name) for alias in node.names}
                if any(alias.name == "*" for alias in node.names) and source != file:
                    found |= {name: (source, name) for name in self._defined(source)}
        return found

    def _defined(self, file: str) -> list[str]:
        """The names that a file defines at its top."""
        body = self.tree(file).body
        return [*self._values_in(file), *(node.name for node in body if isinstance(node, Definition))]

    def imported_module(self, file: str, name: str) -> str | None:
        """The file that a name of a file stands for by an `import` of it."""
        for node in self.tree(file).body:
            for alias in node.names if isinstance(node, ast.Import) else ():
                if (alias.asname or alias.name) == name:
                    return self.as_file(alias.name)
        return None

    def as_file(self, module: str) -> str | None:
        path = module.replace(".", "/")
        return next((f for f in (f"{path}.py", f"{path}/__init__.py") if self.read(f) is not None), None)

    def closure(self, file: str) -> dict[str, str]:
        """A file and all that it imports from here, with their texts. Raises OwnCodeError."""
        parents = [f"{'/'.join(file.split('/')[:n])}/__init__.py" for n in range(1, len(file.split("/")))]
        left, found = [file, *(name for name in parents if self.read(name) is not None)], dict[str, str]()
        while left:
            file = left.pop()
            if file not in found:
                found[file] = self.read(file) or ""
                modules = list(_imports(self.tree(file), file))
                packages = {".".join(m.split(".")[:n]) for m in modules for n in range(1, len(m.split(".")))}
                left += [f for module in {*modules, *packages} if (f := self.as_file(module))]
        return dict(sorted(found.items()))

    def names_in(self, file: str) -> Names:
        """What the names of a file stand for that it gives values or types at its top, or imports from others here."""
        imported = {}
        for name, (source, there) in self._imported(file).items():
            with contextlib.suppress(OwnCodeError):
                values = self._values_in(source)
                if there in values:
                    imported[name] = values[there]
        return Names({**imported, **self._values_in(file)})

    def _values_in(self, file: str) -> dict[str, ast.expr]:
        found: dict[str, ast.expr] = {}
        for node in self.tree(file).body:
            if isinstance(node, ast.Assign):
                found |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                found[node.target.id] = node.value
        return found

    def fail(self, file: str, node: ast.AST, message: str) -> NoReturn:
        raise OwnCodeError(f"{self.label}/{file}:{getattr(node, 'lineno', 0)}: {message}")


def hashes(files: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of each file."""
    return {file: hashlib.sha256(text.encode()).hexdigest() for file, text in files.items()}


def _imports(tree: ast.Module, file: str) -> Iterator[str]:
    """The modules that a file imports anywhere in it; of `from a import b`, both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _module_of(node, file)
            yield module
            yield from (f"{module}.{alias.name}".lstrip(".") for alias in node.names)


def _module_of(node: ast.ImportFrom, file: str) -> str:
    """The module that is imported from, in full where it is relative to the file's."""
    if not node.level:
        return node.module or ""
    package = file.split("/")[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])
