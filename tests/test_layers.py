"""A module imports only from the layers above its own, and what answers at once imports nothing heavy."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pipeline"

# A line is a layer, its modules named without `pipeline.`; modules of one layer do not import one another. That the
# catalog names code in lower layers as text, loaded when a job runs, is what keeps it and the spec free of torch.
LAYERS = """
    __init__  errors  paths  durable  lease
    catalog  records  yamltree  stop  conditions
    spec
    explain  reference  tickets
    jobfile  jobqueue
    repair  status  doctor  serve  reporting  workers  gpus
    child
    data.__init__  models.__init__  board.__init__  results.__init__
    data.augment  data.cache  data.folder_listing  data.pictures  board.tags  board.events  board.server
    board.images  board.texts  features  results.runs
    device  metrics  optim  checkpoint  data.source  models.net  models.cnn_bn  models.vgg  board.writer
    data.digits  data.downloads  data.image_folder  data.loader  manifest
    board.histograms  board.curves  board.figures  board.graph  board.hparams  board.layout
    board.profile  board.projector
    engine
    logbook
    train
    run
    worker  terminal  results.export  results.classifier
    results.compare  results.model_formats  results.report_facts  results.report_charts
    results.plot  results.export_model  results.report_classes
    results.report
    cli_common
    cli_workers  cli_results
    cli
"""
LAYER_OF = {module: depth for depth, line in enumerate(LAYERS.strip().splitlines()) for module in line.split()}

MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
LAYER_OF |= {m: LAYER_OF["models.net"] for m in MODULES if m.startswith("models.") and m not in LAYER_OF}  # one's own
HEAVY = {"torch", "torchvision", "sklearn", "matplotlib", "numpy", "PIL", "tensorboard"}


def imported(tree: ast.AST) -> Iterator[str]:
    """What a tree imports, as `pipeline.data.source`; of `from pipeline import x`, `pipeline.x`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            for alias in node.names:
                yield f"{node.module}.{alias.name}" if is_module(f"{node.module}.{alias.name}") else str(node.module)


def is_module(name: str) -> bool:
    return our_name(name) is not None


def our_name(name: str) -> str | None:
    """`data.source` of `pipeline.data.source`, `data.__init__` of `pipeline.data`; None where it is not ours."""
    top, _, rest = name.partition(".")
    if top != "pipeline":
        return None
    return next((found for found in (rest, f"{rest}.__init__".lstrip(".")) if found in MODULES), None)


def imports_of(module: str) -> set[str]:
    """Ours, wherever they stand: in a function and under TYPE_CHECKING too."""
    tree = ast.parse(MODULES[module].read_text())
    return {name for name in map(our_name, imported(tree)) if name is not None} - {module}


def test_every_module_has_its_layer() -> None:
    assert LAYER_OF.keys() == MODULES.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_downwards_only(module: str) -> None:
    assert [name for name in imports_of(module) if LAYER_OF[name] >= LAYER_OF[module]] == []


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
    """By reading; `test_cli.py` does it by running."""
    reached, left = {"cli"}, ["cli"]
    heavy = []
    while left:
        module = left.pop()
        names = set(imported(when_loaded(ast.parse(MODULES[module].read_text()))))
        heavy += [f"{module}: {name}" for name in names if name.partition(".")[0] in HEAVY]
        ours = {name for name in map(our_name, names) if name is not None} - reached
        reached |= ours
        left += ours
    assert heavy == []
    assert reached >= {"spec", "catalog", "jobfile", "jobqueue", "status", "terminal", "doctor"}
