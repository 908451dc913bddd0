"""The rooms of the house: what each package may import, that none goes in circles, and that the root stays small.

Arrows that are written as text count too: `module:attribute` in the catalog, `-m module` of a process that is started.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pipeline"

# A room and the rooms that its modules may import; `root` is what lies in pipeline/ itself.
MAY_IMPORT = {
    "root": {"root"},
    "home": {"root"},
    "jobfile": {"root", "home"},
    "queue": {"root", "home", "jobfile"},
    "search": {"root", "home", "jobfile", "queue"},
    "models": set(),
    "data": {"root", "home"},
    "board": {"root", "home", "jobfile"},
    "training": {"root", "home", "jobfile", "models", "data", "board"},
    "worker": {"root", "home", "jobfile", "queue"},
    "results": {"root", "home", "jobfile", "queue", "models", "data", "board", "training"},
    "cli": {"root", "home", "jobfile", "queue", "board", "training", "worker", "results"},
}
OF_ROOT = {
    "home": {"pipeline.errors"},
    "data": {"pipeline.errors", "pipeline.wording"},
}  # these may import no more of it
# What a room names as text, for whoever is handed it to load, or as a process to start.
MAY_NAME = {
    "jobfile": {"models", "data", "training"},  # the catalog
    "worker": {"training", "search", "results", "worker"},  # an attempt at a training, or at a sweep; a report; a probe
    "board": {"board"},  # TensorBoard
    "cli": {"cli", "training"},  # its commands, each loaded when it is called; a rehearsal
    "compose.yaml": {"board"},
}
MAX_ROOT_MODULES = 8
MAX_LINES = 300
HEAVY = {"torch", "torchvision", "matplotlib", "numpy", "PIL", "tensorboard"}

MODULES = {
    ".".join(("pipeline", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else "root"


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a tree imports; of `from package import module`, the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else str(node.module)


def imports_of(module: str) -> set[str]:
    """Ours, wherever they stand: in a function and under TYPE_CHECKING too."""
    return {name for name in imported(ast.parse(MODULES[module].read_text())) if name in MODULES} - {module}


def named_in(text: str) -> set[str]:
    """Our modules that a text names to be loaded or started, as `pipeline.models.net:Net`; not in prose."""
    return set(re.findall(r"""["'](pipeline(?:\.\w+)+)(?::\w+)?["']""", text)) | set(
        re.findall(r"-m, (pipeline(?:\.\w+)+)", text)
    )


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    room = room_of(module)
    allowed = MAY_IMPORT[room] | {room}
    assert sorted(name for name in imports_of(module) if room_of(name) not in allowed) == []
    if room in OF_ROOT:
        assert {name for name in imports_of(module) if room_of(name) == "root"} <= OF_ROOT[room]


def test_what_a_room_names_as_text_is_there_and_allowed() -> None:
    arrows = {module: named_in(path.read_text()) for module, path in MODULES.items()}
    rooms: dict[str, set[str]] = {}
    for module, names in arrows.items():
        assert names <= MODULES.keys(), module
        if names:
            rooms.setdefault(room_of(module), set()).update(map(room_of, names))
    composed = named_in((ROOT / "compose.yaml").read_text())
    assert composed <= MODULES.keys()
    assert {**rooms, "compose.yaml": set(map(room_of, composed))} == MAY_NAME


def test_training_and_worker_are_strangers() -> None:
    for one, other in (("training", "worker"), ("worker", "training")):
        for module in (name for name in MODULES if room_of(name) == one):
            assert not [name for name in imports_of(module) if room_of(name) == other]


def test_the_installed_command_leads_to_what_is_there() -> None:
    (module, attribute) = re.findall(r'^pipeline = "([\w.]+):(\w+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[0]
    assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_no_import_goes_in_a_circle_inside_a_room(room: str) -> None:
    """Imports for types alone count: they say who knows of whom."""
    graph = {m: {n for n in imports_of(m) if room_of(n) == room} for m in MODULES if room_of(m) == room}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("room", sorted(set(MAY_IMPORT) - {"root"}))
def test_a_room_says_in_a_sentence_what_it_owns_and_loads_nothing(room: str) -> None:
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_the_root_has_few_modules_and_every_package_is_a_room() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_ROOT_MODULES
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == MAY_IMPORT.keys() - {"root"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_module_is_too_long_to_be_one_thing(module: str) -> None:
    assert len(MODULES[module].read_text().splitlines()) <= MAX_LINES


def when_loaded(tree: ast.Module) -> ast.Module:
    """The tree without what runs later or never: functions, and blocks for the type checker."""

    class Without(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            del node

        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            is_for_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return node.orelse if is_for_types else self.generic_visit(node)

    loaded: ast.Module = Without().visit(tree)
    return loaded


def test_the_command_line_loads_nothing_heavy() -> None:
    """By reading; `tests/cli/test_main.py` does it by running."""
    left = [module for module in MODULES if room_of(module) == "cli"]  # the entry loads the commands by name
    reached = set(left)
    heavy = []
    while left:
        module = left.pop()
        names = set(imported(when_loaded(ast.parse(MODULES[module].read_text()))))
        heavy += [f"{module}: {name}" for name in names if name.partition(".")[0] in HEAVY]
        ours = (names & MODULES.keys()) - reached
        reached |= ours
        left += ours
    assert heavy == []
    assert {room_of(module) for module in reached} >= {"cli", "queue", "jobfile", "home"}
