"""Python files of a user's own, as a job file sees them: they are read here, and never run.

`my_models:WideNet` is the class or function WideNet of `modules/my_models.py`. What it is called with, and so its
options, is read from its signature (`own_signatures.py`); what it imports from the same folder is frozen with a job.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import OwnCodeError
from pipeline.jobfile.entries import Dataset, Entry, Loss, Model
from pipeline.jobfile.number_patterns import END
from pipeline.jobfile.own_code import OwnCode
from pipeline.jobfile.own_files import Definition, OwnFiles
from pipeline.jobfile.own_signatures import Signature, read_signature
from pipeline.jobfile.own_values import NotPlainError, last_name, value_of

_WORD = "[A-Za-z_][A-Za-z0-9_]*"
PATTERN = rf"^{_WORD}(\.{_WORD})*:{_WORD}{END}"  # for editors
UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, MemoryError)
MAX_BASES = 100  # of a class, that are looked at for its signature
NAME = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<attribute>[A-Za-z_]\w*)", re.ASCII)


@dataclass(frozen=True)
class Kind:
    """What code in the place of an entry of the catalog is called with."""

    noun: str
    entry: type[Entry]
    given: frozenset[str]  # by name, if it takes them
    by_position: int = 0  # of a function
    class_by_position: int = 0  # of a class, beside self
    facts: tuple[str, ...] = ()  # of the entry, that a decorator may tell


KINDS: Mapping[str, Kind] = {
    "model": Kind(
        "a model", Model, frozenset({"num_classes", "channels", "image_size"}), facts=("min_size", "min_batch")
    ),
    "dataset": Kind(
        "a dataset",
        Dataset,
        frozenset({"root", "train"}),
        facts=("num_classes", "channels", "size"),
    ),
    "augmentation": Kind("an augmentation", Entry, frozenset({"draws", "fill"}), by_position=1),
    "optimizer": Kind("an optimizer", Entry, frozenset({"fused"}), by_position=1, class_by_position=1),
    "schedule": Kind("a schedule", Entry, frozenset({"steps", "steps_per_epoch"}), by_position=1),
    "loss": Kind("a loss", Loss, frozenset({"num_classes", "label_smoothing"}), by_position=2),
}
"""By the name of the decorator in `pipeline/modules.py`."""


class Modules(OwnFiles):
    """The files as entries of the catalog."""

    def __init__(self, label: str, root: Path, *, files: Mapping[str, str] | None = None) -> None:
        super().__init__(label, root, files=files)
        self._entries: dict[tuple[str, str], Entry] = {}

    def entry(self, kind: str, name: str, *, taken: frozenset[str]) -> Entry:
        """What a name of one's own stands for in a section of this kind. Raises OwnCodeError.

        taken: names that an option cannot have.
        """
        if (kind, name) not in self._entries:
            self._entries[kind, name] = self._made(kind, name, taken)
        return self._entries[kind, name]

    def _made(self, kind: str, name: str, taken: frozenset[str]) -> Entry:
        match = NAME.fullmatch(name)
        if match is None:
            raise OwnCodeError("write it as file:Class, as in my_models:WideNet")
        file = self.file_of(match["module"])
        defined_in, node = self.find(file, match["attribute"], suitable=lambda: self._attributes(kind, match["module"]))
        try:
            signature = self._signature(KINDS[kind], defined_in, node, taken)
        except UNREADABLE as error:
            self.fail(defined_in, node, f"its signature cannot be read: {type(error).__name__}: {error}")
        except OwnCodeError:
            looks = [other for other in KINDS if other != kind and self._looks_like(other, defined_in, node)]
            if looks and not self._looks_like(kind, defined_in, node):
                is_meant = f"{node.name} looks like {KINDS[looks[0]].noun}, and not like {KINDS[kind].noun}"
                self.fail(defined_in, node, is_meant)
            raise
        own = OwnCode(
            sources=self,
            module=match["module"],
            attribute=match["attribute"],
            file=file,
            defined_in=defined_in,
            line=node.lineno,
            is_class=isinstance(node, ast.ClassDef),
            parameters=signature.parameters,
            takes_any=signature.takes_any,
            lists=signature.lists,
        )
        return self._entry(kind, defined_in, node, signature, own, name)

    def _entry(self, kind: str, file: str, node: Definition, signature: Signature, own: OwnCode, name: str) -> Entry:
        told = self._told(file, node)
        if told and kind not in told:
            self.fail(file, node, f"{node.name} is {KINDS[next(iter(told))].noun}, and not {KINDS[kind].noun}")
        first_line = (ast.get_docstring(node) or "").strip().partition("\n")[0]
        summary = first_line.encode("utf-8", "replace").decode() or f"of {self.label}/{file}"
        facts: dict[str, Any] = {key: value for key, value in told.get(kind, {}).items() if key in KINDS[kind].facts}
        if kind == "loss":
            facts["is_smooth"] = "label_smoothing" in signature.parameters
        if kind == "dataset" and not (signature.takes_any or "train" in signature.parameters):
            self.fail(file, node, f"{node.name} takes no train, by which it would tell images to train on from others")
        if kind == "optimizer" and "lr" not in signature.options:
            self.fail(file, node, f"{node.name} has no option lr: the learning rate at the schedule's peak")
        return KINDS[kind].entry(name, summary, signature.options, own=own, **facts)

    def _told(self, file: str, node: Definition) -> dict[str, dict[str, int]]:
        """The kinds that its decorators say it is, each with the facts that they tell."""
        found = {}
        for decorator in node.decorator_list:
            kind = last_name(decorator)
            if kind in KINDS:
                keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
                found[kind] = {str(k.arg): self._fact(kind, k, file, decorator) for k in keywords}
        return found

    def _fact(self, kind: str, keyword: ast.keyword, file: str, decorator: ast.AST) -> int:
        known = KINDS[kind].facts
        if keyword.arg not in known:
            self.fail(file, decorator, f"@{kind} takes no {keyword.arg} (known: {', '.join(known) or 'nothing'})")
        try:
            value = value_of(keyword.value, self.names_in(file))
        except NotPlainError:
            value = None
        if type(value) is not int or value < 1:
            self.fail(file, decorator, f"what @{kind} is given must be plain whole numbers, 1 or more")
        return value

    def _signature(self, kind: Kind, file: str, node: Definition, taken: frozenset[str]) -> Signature:
        is_class = isinstance(node, ast.ClassDef)
        where, function = self._init_of(file, node) if isinstance(node, ast.ClassDef) else (file, node)
        if function is None:
            return Signature({}, frozenset(), takes_any=False, lists=frozenset())
        return read_signature(
            function.args,
            by_position=1 + kind.class_by_position if is_class else kind.by_position,
            given=kind.given,
            taken=taken,
            names=self.names_in(where),
            fail=functools.partial(self.fail, where),
        )

    def _init_of(
        self, file: str, node: ast.ClassDef, seen: set[int] | None = None
    ) -> tuple[str, ast.FunctionDef | None]:
        """The `__init__` of a class, or of the first of its bases here that has one."""
        seen = set() if seen is None else seen
        seen.add(id(node))
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                return file, member
        for base in node.bases:
            found = self._base(file, base)
            if found is not None and id(found[1]) not in seen and len(seen) < MAX_BASES:
                where, init = self._init_of(*found, seen)
                if init is not None:
                    return where, init
        return file, None

    def _base(self, file: str, base: ast.expr) -> tuple[str, ast.ClassDef] | None:
        """The class that a base is here: by its name, or as `module.Class`."""
        attribute = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
        source: str | None = file
        if isinstance(base, ast.Attribute):
            source = self.imported_module(file, base.value.id) if isinstance(base.value, ast.Name) else None
        with contextlib.suppress(OwnCodeError):
            if source is None:
                return None
            where, node = self.find(source, attribute)
            return (where, node) if isinstance(node, ast.ClassDef) else None
        return None

    def listing(self, kind: str) -> list[str]:
        """The names that may be of this kind, as far as the files tell: by a decorator, or by what is called how."""
        found = []
        for file in self.all_files():
            module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            with contextlib.suppress(OwnCodeError):
                for node in self.tree(file).body:
                    if isinstance(node, Definition) and not node.name.startswith("_"):
                        told = self._told(file, node)
                        if kind in told or (not told and self._looks_like(kind, file, node)):
                            found.append(f"{module}:{node.name}")
        return found

    def _attributes(self, kind: str, module: str) -> list[str]:
        """The names in a module that may be of this kind."""
        found = (name.partition(":") for name in self.listing(kind))
        return [attribute for where, _, attribute in found if where == module]

    def _looks_like(self, kind: str, file: str, node: Definition) -> bool:
        init = self._init_of(file, node)[1] if isinstance(node, ast.ClassDef) else node
        named = {parameter.arg for parameter in (*init.args.args, *init.args.kwonlyargs)} if init else set()
        if isinstance(node, ast.ClassDef):
            called = next((m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "forward"), None)
            first = [parameter.arg for parameter in called.args.args[1:]] if called else []
            bases = {last_name(base) for base in node.bases}
        else:
            first, bases = [parameter.arg for parameter in node.args.args], set()
        looks: Mapping[str, Callable[[], bool]] = {
            "model": lambda: "num_classes" in named and first[:2] != ["logits", "labels"],
            "dataset": lambda: {"root", "train"} <= named,
            "augmentation": lambda: first[:1] == ["images"] and "num_classes" not in named,
            "optimizer": lambda: "Optimizer" in bases or (not bases and first[:1] in (["parameters"], ["params"])),
            "schedule": lambda: first[:1] == ["step"],
            "loss": lambda: first[:2] == ["logits", "labels"],
        }
        return looks[kind]()


NONE = Modules.frozen({})
_current: ContextVar[Modules] = ContextVar("modules", default=NONE)


def is_own(name: object) -> bool:
    """Whether a name is meant to be one of the user's own."""
    return isinstance(name, str) and ":" in name


def current() -> Modules:
    """The modules that names of one's own are looked up in now."""
    return _current.get()


@contextlib.contextmanager
def using(modules: Modules) -> Iterator[None]:
    """Has job files be read with these modules."""
    token = _current.set(modules)
    try:
        yield
    finally:
        _current.reset(token)
