"""Modules of the user's own: what a job file may name, its options, and what is said where something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_texts import known

from pipeline.errors import OwnCodeError, SpecError
from pipeline.jobfile import catalog, json_schema, own_modules, reading, reference
from pipeline.jobfile.own_code import OwnCode
from pipeline.jobfile.own_modules import Modules
from pipeline.jobfile.sections import NamedSection
from pipeline.jobfile.spec import NAMED_SECTIONS, Spec

Write = Callable[..., Modules]

NET = '''
from typing import Annotated, Literal, Optional

from pydantic import Field
from torch import nn

WIDTH = 2 * 16


class Net(nn.Module):
    """A small net."""

    def __init__(
        self,
        num_classes: int,
        width: Annotated[int, Field(ge=1, le=64, description="Channels.")] = WIDTH,
        kind: Literal["relu", "gelu"] = "relu",
        rate: float = 1,
        sizes: list[int] = [1, 2],
        name_of_it: Optional[str] = None,
        *,
        deep: bool = False,
        hook=print,
    ) -> None:
        super().__init__()
'''


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes modules by their names; gives them as the user's own."""

    def write(**texts: str) -> Modules:
        for name, text in texts.items():
            path = tmp_path / "modules" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return Modules("modules", tmp_path / "modules")

    return write


def read(modules: Modules, model: str, tmp_path: Path, more: str = "") -> Spec:
    path = tmp_path / "job.yaml"
    path.write_text(f"name: own\nmodel: {model}\ndata: {{name: digits}}\n{more}")
    return reading.load(path, modules=modules)


def problem(modules: Modules, model: str, tmp_path: Path, more: str = "") -> str:
    with pytest.raises(SpecError) as caught:
        read(modules, model, tmp_path, more)
    return str(caught.value).replace(f"{tmp_path}/", "")


def own(section: NamedSection) -> OwnCode:
    assert section.entry.own is not None
    return section.entry.own


def test_the_options_are_those_of_the_signature_with_their_defaults(write: Write, tmp_path: Path) -> None:
    section = read(write(my=NET), "{name: my:Net, kind: gelu, sizes: [3]}", tmp_path).model
    assert section.options() == {
        "width": 32,
        "kind": "gelu",
        "rate": 1.0,
        "sizes": [3],
        "name_of_it": None,
        "deep": False,
    }
    assert type(section.options()["rate"]) is float
    assert section.entry.summary == "A small net."


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{name: my:Net, width: 0}", "model.width: 0 should be at least 1"),
        ("{name: my:Net, width: 65}", "model.width: 65 should be at most 64"),
        ("{name: my:Net, width: '3'}", "model.width: '3' should be a whole number; write 3"),
        (
            "{name: my:Net, kind: glu}",
            "model.kind: 'glu' is not allowed; did you mean 'gelu'? (known: gelu, relu)",
        ),
        (
            "{name: my:Net, widht: 1}",
            "model.widht: 'my:Net' has no such field; did you mean 'width'? "
            "(known: backbone_lr, batch_norm_momentum, deep, freeze_epochs, init, kind, name, name_of_it, quantize, "
            "rate, sizes, width)",
        ),
        ("{name: my:Net, hook: 1}", "model.hook: 'my:Net' has no such field"),
        (
            "{name: my:Met, width: 3}",
            "model.name: 'my:Met' is not a model: modules/my.py defines no class or function Met; did you mean 'Net'?",
        ),
        ("{name: mine:Net}", "model.name: 'mine:Net' is not a model: there is no mine.py in modules"),
        (
            "{name: Net}",
            "model.name: 'Net' is not a model; write my:Net" + known(*sorted([*catalog.MODELS, "my:Net"])),
        ),
        ("{name: 'my:'}", "model.name: 'my:' is not a model: write it as file:Class, as in my_models:WideNet"),
        ("my:Net", "model: 'my:Net' should be a mapping of fields; write {name: my:Net}"),
    ],
)
def test_a_mistake_is_told_as_with_an_entry_of_the_catalog(write: Write, tmp_path: Path, model: str, said: str) -> None:
    found = problem(write(my=NET), model, tmp_path)
    assert len(found.splitlines()) == 1
    assert found.startswith(f"job.yaml:2: {said}")


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("width", "'width' has neither a type hint nor a default; write width: int, for example"),
        ("act: Callable", "'act' is of a type that a job file cannot give"),
        ("width: Annotated[int, Field(ge=1)] = 0", "the default of 'width' is not what its hint allows: it should be"),
        (
            "width: Annotated[int, Field(multiple_of=2)] = 2",
            "'width' is bounded by Field(multiple_of=...), which is not known here (known: ",
        ),
        ("width: Annotated[str, Field(ge=1)] = 'a'", "'width' has bounds that do not fit its type"),
        ("schema: int = 3", "an option cannot be called 'schema', which is taken; rename it"),
        ("width: Annotated[int | str, Field(ge=1)] = 0", "'width' has bounds that do not fit its type"),
        ("entry: int = 3", "an option cannot be called 'entry', which is taken; rename it"),
        ("__slots__: int = 3", "an option cannot be called '__slots__', which is taken; rename it"),
        ("width: list[None]", "'width' is of a type that a job file cannot give"),
        ("width: Optional[()]", "'width' is of a type that a job file cannot give"),
        ("width: tuple[...]", "'width' is of a type that a job file cannot give"),
        ("width: int = 3, /", "'width' can be passed by position only, and options are passed by name"),
    ],
)
def test_what_a_job_file_cannot_give_is_told_with_the_users_line(
    write: Write, tmp_path: Path, parameter: str, said: str
) -> None:
    modules = write(my=f"class Net:\n    def __init__(self, {parameter}):\n        pass\n")
    assert problem(modules, "{name: my:Net}", tmp_path).startswith(
        f"job.yaml:2: model.name: 'my:Net' is not a model: modules/my.py:2: {said}"
    )


def test_no_method_of_a_section_can_be_hidden_by_an_option(write: Write, tmp_path: Path) -> None:
    for name in (name for name in dir(NamedSection) if not name.startswith("_")):
        modules = write(my=f"class Net:\n    def __init__(self, {name}: int = 1):\n        pass\n")
        assert "which is taken" in problem(modules, "{name: my:Net}", tmp_path)


@pytest.mark.parametrize(
    ("hint", "value", "given"),
    [
        ("int | None", "null", None),
        ("Optional[int] = None", "3", 3),
        ("Union[int, str]", "a", "a"),
        ("'int'", "3", 3),
        ("tuple[int, str]", "[1, a]", (1, "a")),
        ("Sequence[float]", "[1, 2.5]", [1.0, 2.5]),
        ("list[int | Literal['M']]", "[1, M]", [1, "M"]),
        ("WIDTH", "4", 4),
        ("Annotated[tuple[int, ...], Field(min_length=1)]", "[4]", (4,)),
        ("Annotated[float, Gt(0)]", "0.5", 0.5),
        ("Literal[1, 2]", "2", 2),
    ],
)
def test_type_hints_as_people_write_them(write: Write, tmp_path: Path, hint: str, value: str, given: Any) -> None:
    modules = write(my=f"WIDTH = int\nclass Net:\n    def __init__(self, x: {hint}): pass\n")
    assert read(modules, f"{{name: my:Net, x: {value}}}", tmp_path).model.options() == {"x": given}


@pytest.mark.parametrize(
    "text",
    [
        "class Net:\n    def __init__(self, x=3, y=-1.5, z='a', w=(1, 2)): pass\n",
        "def Net(x=3, y=-1.5, z='a', w=(1, 2)): pass\n",
        "class Base:\n    def __init__(self, x=3, y=-1.5, z='a', w=(1, 2)): pass\nclass Net(Base): pass\n",
        "from base import Base\nclass Net(Base): pass\n",
        "from base import Base as Net\n",
        "import base\nclass Net(base.Base): pass\n",
    ],
)
def test_a_signature_is_found_wherever_it_stands(write: Write, tmp_path: Path, text: str) -> None:
    base = "class Base:\n    def __init__(self, x=3, y=-1.5, z='a', w=(1, 2)): pass\n"
    section = read(write(my=text, base=base), "{name: my:Net}", tmp_path).model
    assert section.options() == {"x": 3, "y": -1.5, "z": "a", "w": (1, 2)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class Net(:\n    pass\n", "modules/my.py:1: invalid syntax"),
        ("x = 1\nclass Net:\npass\n", "modules/my.py:3: expected an indented block"),
        ("Net = 3\n", "modules/my.py defines no class or function Net"),
        ("from my import Net\n", "modules/my.py defines no class or function Net"),
        ("X = X\nclass Net:\n    def __init__(self, x: X): pass\n", "modules/my.py:3: 'x' is of a type"),
        ("class Net(Net): pass\n", ""),
        ("\x00", "modules/my.py: source code string cannot contain null bytes"),
        (
            "from pipeline.modules import loss\n@loss\nclass Net: pass\n",
            "modules/my.py:3: Net is a loss, and not a model",
        ),
        (
            "def Net(logits, labels): pass\n",
            "modules/my.py:1: Net looks like a loss, and not like a model",
        ),
        (
            "from pipeline.modules import model\n@model(min_size=input())\nclass Net: pass\n",
            "modules/my.py:2: what @model is given must be plain whole numbers, 1 or more",
        ),
    ],
)
def test_files_that_cannot_be_read(write: Write, tmp_path: Path, text: str, said: str) -> None:
    modules = write(my=text)
    if said:
        assert f"'my:Net' is not a model: {said}" in problem(modules, "{name: my:Net, width: 3}", tmp_path)
    else:
        assert read(modules, "{name: my:Net}", tmp_path).model.options() == {}


@pytest.mark.parametrize(
    "default",
    [
        *("float = 1e999", "float = 1e999 - 1e999", "int = 0x" + "f" * 400, "float = 0x" + "f" * 400, "int = 9**9**9"),
        *("list[None] = None", "Optional[()] = None", "Union[()] = None", "List[()] = None", "Annotated[()] = None"),
        *("tuple[...] = None", "tuple[int, None] = None", "'" + "-" * 9_000 + "1' = 3", "A9 = 3", "int = A9", "U9 = 3"),
        *("int = B9", "str = '\\ud800'", "Annotated[int, Field(ge=None)] = 3"),
    ],
)
def test_what_no_job_file_could_give_is_no_option_and_harms_nobody(write: Write, tmp_path: Path, default: str) -> None:
    """Among it what would take a reader hours: ten names, each twelve times the one before it."""
    names = ["A0 = 1", "U0 = int", "B0 = 0x" + "f" * 15]
    for number in range(1, 10):
        names += [
            f"A{number} = [{', '.join([f'A{number - 1}'] * 12)}]",
            f"U{number} = Union[{', '.join([f'U{number - 1}'] * 12)}]",
            f"B{number} = B{number - 1} * B{number - 1}",
        ]
    text = "\n".join(
        [*names, "class Net:", f"    def __init__(self, num_classes, x: {default}, good: int = 3):", "        pass"]
    )
    modules = write(my=text)
    assert read(modules, "{name: my:Net}", tmp_path).model.options() == {"good": 3}
    with own_modules.using(modules):
        assert "x" not in json_schema.json_schema()["$defs"]["my:Net_section"]["properties"]
        assert "| `my:Net` |" in reference.markdown()


def test_a_class_of_very_many_bases_is_read_at_once(write: Write, tmp_path: Path) -> None:
    lines = ["class C0: pass"]
    lines += [f"class C{n}({', '.join([f'C{n - 1}'] * 12)}): pass" for n in range(1, 12)]
    assert read(write(my="\n".join(lines)), "{name: my:C11}", tmp_path).model.options() == {}


def test_one_bad_file_spoils_no_message_about_another(write: Write, tmp_path: Path) -> None:
    modules = write(bad="def f(num_classes, x: list[None]): pass\n", worse="def (", my=NET)
    assert "'Nett' is not a model; did you mean" in problem(modules, "{name: Nett}", tmp_path)


def test_what_is_suggested_of_a_module_is_of_the_kind_that_is_chosen(write: Write, tmp_path: Path) -> None:
    """A loss whose name is nearer would not do as a model."""
    modules = write(my=f"{NET}\n\ndef nets(logits, labels):\n    return 0\n")
    found = problem(modules, "{name: 'my:netss'}", tmp_path)
    assert "defines no class or function netss; did you mean 'Net'? (known: Net, nets)" in found
    assert "defines no class or function Nett; did you mean 'Net'?" in problem(modules, "{name: 'my:Nett'}", tmp_path)


def test_a_dataset_must_be_told_which_images_are_to_train_on(write: Write, tmp_path: Path) -> None:
    modules = write(my="class Data:\n    def __init__(self, root, split: str = 'train'): pass\n")
    path = tmp_path / "job.yaml"
    path.write_text("name: own\nmodel: {name: net}\ndata: {name: my:Data}\n")
    with pytest.raises(SpecError, match="Data takes no train, by which it would tell images to train on from others"):
        reading.load(path, modules=modules)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@model(minsize=8)", "@model takes no minsize (known: min_size, min_batch)"),
        ('@model(min_size="8")', "what @model is given must be plain whole numbers, 1 or more"),
        ("@model(min_size=0)", "what @model is given must be plain whole numbers, 1 or more"),
    ],
)
def test_a_wrong_decorator_is_told(write: Write, tmp_path: Path, text: str, said: str) -> None:
    modules = write(my=f"from pipeline.modules import model\n{text}\nclass Net: pass\n")
    assert said in problem(modules, "{name: my:Net}", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "from cfg import W\nclass Net:\n    def __init__(self, x: int = W): pass\n",
        "from cfg import *\nclass Net(Base): pass\n",
        "class Net:\n    def __init__(self, x: int = 2**3): pass\n",
        "\ufeffclass Net:\n    def __init__(self, x: int = 8): pass\n",
    ],
)
def test_what_people_write_too(write: Write, tmp_path: Path, text: str) -> None:
    modules = write(my=text, cfg="W = 8\nclass Base:\n    def __init__(self, x: int = 8): pass\n")
    section = read(modules, "{name: my:Net}", tmp_path).model
    assert section.options() == {"x": 8}
    assert own(section).load().__name__ == "Net"


def test_a_link_to_a_file_is_followed(write: Write, tmp_path: Path) -> None:
    modules = write(other="")
    (tmp_path / "elsewhere.py").write_text(NET)
    (tmp_path / "modules" / "my.py").symlink_to(tmp_path / "elsewhere.py")
    assert read(modules, "{name: my:Net}", tmp_path).own_files() == {"my.py": NET}


def test_a_file_that_would_hide_a_module_of_others_is_refused(write: Write, tmp_path: Path) -> None:
    assert "random is a module that others import" in problem(write(random=NET), "{name: random:Net}", tmp_path)


def test_facts_of_a_decorator_are_kept_like_those_of_the_catalog(write: Write, tmp_path: Path) -> None:
    modules = write(my="from pipeline.modules import model\n@model(min_size=16)\nclass Net: pass\n")
    assert problem(modules, "{name: my:Net}", tmp_path) == (
        "job.yaml:2: model.name: 'my:Net' needs images of at least 16 pixels, and digits has 8; set data.image_size: 32"
    )


def test_an_optimizer_must_have_a_learning_rate(write: Write, tmp_path: Path) -> None:
    modules = write(my="class Mine:\n    def __init__(self, params, rate: float = 1): pass\n")
    found = problem(modules, "{name: net}", tmp_path, "train: {optimizer: {name: my:Mine}}\n")
    assert "'my:Mine' is not an optimizer: modules/my.py:1: Mine has no option lr" in found


def test_every_section_takes_code_of_ones_own(write: Write, tmp_path: Path) -> None:
    modules = write(
        my="""
        def model(num_classes, channels, image_size, depth: int = 1): pass
        def dataset(root, train, size: int = 8): pass
        def augmentation(images, draws, fill, p: float = 0.5): pass
        def optimizer(params, lr: float = 0.1, fused=False): pass
        def schedule(step, steps, steps_per_epoch, power: float = 2): pass
        def loss(logits, labels, label_smoothing, gamma: float = 1): pass
        """
    )
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: own\nmodel: {name: my:model}\ndata: {name: my:dataset, augment: [my:augmentation]}\n"
        "train:\n  optimizer: {name: my:optimizer}\n  schedule: {name: my:schedule}\n  loss: {name: my:loss}\n"
        "  label_smoothing: 0.1\n"
    )
    spec = reading.load(path, modules=modules)
    assert {at: section.options() for at, section in spec.named_sections()} == {
        "model": {"depth": 1},
        "data": {"size": 8},
        "data.augment.0": {"p": 0.5},
        "train.optimizer": {"lr": 0.1},
        "train.schedule": {"power": 2.0},
        "train.loss": {"gamma": 1.0},
    }


def test_what_a_file_imports_from_the_folder_belongs_to_it(write: Write, tmp_path: Path) -> None:
    modules = write(
        **{
            "my": "import torch\nfrom layers.conv import Conv\nclass Net: pass\ndef later():\n    import late\n",
            "layers/__init__": "",
            "layers/conv": "from . import shared\nfrom .deep.er import x\n",
            "layers/shared": "",
            "layers/deep/er": "x = 1\n",
            "late": "",
            "other": "",
        }
    )
    files = read(modules, "{name: my:Net}", tmp_path).own_files()
    assert sorted(files) == [
        "late.py",
        "layers/__init__.py",
        "layers/conv.py",
        "layers/deep/er.py",
        "layers/shared.py",
        "my.py",
    ]
    files["layers/conv.py"] += "Conv = shared\n"
    files["my.py"] = files["my.py"].replace("import torch\n", "")
    frozen = Modules("run", tmp_path / "nowhere", files=files)
    assert own(read(frozen, "{name: my:Net}", tmp_path).model).load().__name__ == "Net"


def test_a_wrong_file_that_is_imported_is_told(write: Write, tmp_path: Path) -> None:
    modules = write(my="import layers\nclass Net: pass\n", layers="def f(:\n")
    assert problem(modules, "{name: my:Net}", tmp_path) == (
        "job.yaml:2: model.name: 'my:Net' does not work: modules/layers.py:1: invalid syntax"
    )


def test_files_that_are_too_much_for_a_ticket_are_refused(write: Write, tmp_path: Path) -> None:
    """By what they take in the ticket; a file that two sections name counts once."""
    lines = "# a comment that is long, to no end\n" * 6000
    loss = "def loss(logits, labels): pass\n"
    modules = write(my=f"import a\n{loss}class Net: pass\n{lines}", a=lines, wide="# " + "\u6f22" * 80_000, chinese="")
    use = "train: {loss: {name: my:loss}}\n"
    assert read(modules, "{name: my:Net}", tmp_path, use).own_files().keys() == {"my.py", "a.py"}
    modules = write(my=f"import a, wide\n{loss}class Net: pass\n{lines}")
    assert "a job has at most 640,000" in problem(modules, "{name: my:Net}", tmp_path)


def test_each_job_has_the_code_that_it_was_read_with(tmp_path: Path) -> None:
    """Two runs in one process, whose files have the same names."""
    specs = []
    for number in (1, 2):
        files = {"my.py": "from part import VALUE\nclass Net:\n    value = VALUE\n", "part.py": f"VALUE = {number}\n"}
        specs.append(read(Modules("m", tmp_path / str(number), files=files), "{name: my:Net}", tmp_path))
    assert [own(spec.model).load().value for spec in (*specs, *specs)] == [1, 2, 1, 2]
    assert "part" in sys.modules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nowhere\nclass Net: pass\n", "m/my.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        ("class Net: pass\n\ndef f():\n    1 / 0\nf()\n", "m/my.py:4: in f: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('bye')\nclass Net: pass\n", "m/my.py:2: SystemExit: bye"),
        ("class Net: pass\nraise ValueError\n", "m/my.py:2: ValueError"),
    ],
)
def test_code_that_fails_is_told_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    spec = read(Modules("m", tmp_path / "m", files={"my.py": text}), "{name: my:Net}", tmp_path)
    with pytest.raises(OwnCodeError) as caught:
        own(spec.model).load()
    assert str(caught.value) == said


def test_the_schema_and_the_page_have_ones_own(write: Write) -> None:
    modules = write(my=NET, broken="def (\n")
    with own_modules.using(modules):
        schema, page = json_schema.json_schema(), reference.markdown()
    section = schema["$defs"]["my:Net_section"]
    assert section["properties"]["width"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 64,
        "description": "Channels.",
        "default": 32,
        "title": "Width",
    }
    assert "| `my:Net` | A small net. |" in page
    assert "| `width` | whole number, ≥ 1, ≤ 64 | `32` | Channels. |" in page
    assert "my:Net" not in json.dumps(json_schema.json_schema())


def test_a_decorator_lists_what_nothing_else_tells(write: Write) -> None:
    text = "from pipeline.modules import model, loss\n@model\nclass A: pass\n@loss\ndef b(x, y): pass\nclass C: pass\n"
    modules = write(my=text)
    assert {kind: names for kind in own_modules.KINDS if (names := modules.listing(kind))} == {
        "model": ["my:A"],
        "loss": ["my:b"],
    }


def test_a_name_of_ones_own_in_every_section_is_right_for_an_editor() -> None:
    """Where the schema was written before the module was."""
    definitions = json_schema.json_schema()
    text = json.dumps(definitions)
    assert text.count(json.dumps(own_modules.PATTERN)) >= len(NAMED_SECTIONS)


def test_reading_a_job_file_with_a_model_of_ones_own_imports_no_torch(write: Write, tmp_path: Path) -> None:
    write(my=NET)
    path = tmp_path / "job.yaml"
    path.write_text("name: own\nmodel: {name: my:Net}\ndata: {name: digits}\n")
    code = (
        "import sys; from pathlib import Path; from pipeline.jobfile import reading, own_modules;"
        "reading.load(Path(sys.argv[1]), modules=own_modules.Modules.in_folder(Path(sys.argv[2])));"
        "print(sorted({'torch', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "modules")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"
