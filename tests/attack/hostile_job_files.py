"""Job files as no person would write them: noise, slips in real ones, traps and bombs of YAML, junk in every field.

Each kind makes of chance a file's bytes and the overrides that are given with it.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import yaml
from job_texts import JOBS

from pipeline.jobfile import catalog
from pipeline.jobfile.yamltree import MAX_BYTES

REAL = {path.name: path.read_bytes() for path in sorted(JOBS.glob("*.yaml"))}
WITNESS = "witness-of-the-job-files"  # a name that no file may have afterwards

Made = tuple[bytes, list[str]]

BYTES = (b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xf0\x9f\x92\xa5", b"\xc2\x85", b"\x1b")
SCALARS = (
    *("", "~", "null", "true", "no", "on", "Off", "012", "0x1F", "0o17", "0b1", "1_000", "12:30", "190:20:30.15"),
    *("1e3", "1e999", "-1e999", "1e-999", ".inf", "-.INF", ".nan", "-0", "+1", "1.", ".5", "1e", "0.1.2", "2001-01-01"),
    *("9" * 20, "9" * 299, "9" * 301, "9" * 5000, "-" + "9" * 40, "1" + "0" * 400 + ".5", "1e" + "9" * 100, "0" * 500),
    *("'", '"', "''", '""', "'a", '"\\', r'"\x4"', r'"\uD800"', r'"\U00110000"', r'"\U7fffffff"', r'"\0"', r'"\e[31m"'),
    *("- a", "? a", ": a", "a: b", "a: b: c", "[", "]", "{", "}", "[]", "{}", "[[[]]]", "{a: {b: }}", "[,]", "{,}"),
    *("&a a", "*a", "&a [*a]", "&a {<<: *a}", "<<", "!!null", "!a", "!<a> b", "!!binary aGk=", "!!set {a}", "!!int x"),
    *("|", ">", "|9", ">-2\n x", "|\n x", "%", "%YAML 9.9", "@a", "`a", "#", "a #b", "a\\", "---", "...", "=", ".."),
    *(f"!!python/object/apply:os.system ['touch {WITNESS}']", f"!!python/object/new:os.system [touch {WITNESS}]"),
    *("!!python/name:os.system", "!!python/module:os", "\u2028", "\u0085", "\ufeff", "\ue000", "\u202e", "é" * 200),
    *("x" * 70, "x" * 5000, "auto", "vgg", "net", "sgd", "crop", "digits", "image_folder", "M", "cpu", "cuda:99", "1h"),
)
FIELDS = (
    *("name", "description", "model", "data", "train", "log", "resources", "model.name", "model.widths", "data.name"),
    *("data.augment", "data.augment.0", "data.path", "data.image_size", "data.batch_size", "train.epochs", "zzz"),
    *("train.seed", "train.optimizer", "train.optimizer.name", "train.optimizer.lr", "train.schedule", "__class__"),
    *("train.schedule.name", "train.checkpoint_every", "log.every", "log.histograms", "resources.timeout", "", "."),
    *("resources.memory", "resources.device", "resources.retry_on", "resources.priority", "a..b", "model.name.x", "<<"),
    *(".".join("a" * depth) for depth in (19, 20, 21, 2000)),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 10**30, -(10**400), 1e308, 1e-320, 0.1, "", "x", "auto", "M", [], {}, [[]]),
    *("\0", "\ud800", "\x1b[2J", "x" * 3000, [1] * 500, ["M"] * 500, [{}] * 300, {str(n): n for n in range(300)}),
    *({"name": name} for name in (*catalog.MODELS, *catalog.DATASETS, *catalog.AUGMENTATIONS, *catalog.OPTIMIZERS)),
)


def noise(chance: random.Random) -> Made:
    """Bytes of any kind, mostly few; or signs that mean something in YAML."""
    size = int(2 ** chance.uniform(0, 16.2))
    if chance.random() < 0.5:
        return chance.randbytes(size), []
    return "".join(chance.choices(":-?[]{},&*!|>'\"%@`#\\ \n\t~<=ab1.", k=size)).encode(), []


def slips(chance: random.Random) -> Made:
    """A real job file, in which a few things are other than they were."""
    text = bytearray(chance.choice(list(REAL.values())))
    for _ in range(chance.choice([1, 1, 2, 3, 10])):
        at, length = chance.randrange(len(text) + 1), chance.choice([0, 1, 2, 5, 40])
        other = chance.choice(list(REAL.values()))
        typed = chance.choice(
            [
                b"",
                bytes([chance.randrange(256)]),
                chance.choice(BYTES),
                chance.choice(SCALARS).encode(),
                bytes(text[at : at + length]) * 2,
                other[chance.randrange(len(other)) :][:60],
            ]
        )
        text[at : at + length] = typed
    return bytes(text), []


def moved_lines(chance: random.Random) -> Made:
    """A real job file whose lines are out of order, twice, gone, or further in or out."""
    lines = chance.choice(list(REAL.values())).splitlines(keepends=True)
    for _ in range(chance.randint(1, 4)):
        at, to = chance.randrange(len(lines)), chance.randrange(len(lines))
        line = chance.choice([lines[at], b"  " + lines[at], lines[at].lstrip(), b""])
        lines[to : to + chance.randint(0, 1)] = [line]
    return b"".join(lines), []


def traps(chance: random.Random) -> Made:
    """A real job file in which a value or a key is one of those that YAML makes something else of."""
    lines = chance.choice(list(REAL.values())).decode().splitlines()
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines))
        key, colon, value = lines[at].partition(":")
        trap = chance.choice(SCALARS)
        lines[at] = (
            f"{key}: {trap}" if chance.random() < 0.8 else f"{key[: len(key) - len(key.lstrip())]}{trap}{colon}{value}"
        )
    return "\n".join(lines).encode(), []


def bombs(chance: random.Random) -> Made:
    """What is short and means a lot, or nests, or repeats up to the limit of a file's size and beyond it."""
    text = chance.choice(BOMBS)(chance, int(2 ** chance.uniform(1, 16.3)), chance.choice(SCALARS)[:20])
    return text.encode()[: MAX_BYTES + chance.choice([0, 0, 1, 5000])], []


def laughs(chance: random.Random, count: int, small: str) -> str:
    """An alias bomb: each line means the line before several times."""
    many = chance.randint(2, 12)
    kind = chance.choice(["[{}]", "{{<<: [{}]}}", "{{a: {}}}"])
    lines = [f"a0: &a0 {small}"]
    lines += [f"a{n}: &a{n} " + kind.format(", ".join([f"*a{n - 1}"] * many)) for n in range(1, min(count, 40))]
    return "\n".join(lines)


def repeated(chance: random.Random, count: int, small: str) -> str:  # noqa: ARG001
    openings = (
        "[",
        "{",
        "- ",
        "? ",
        "{a: ",
        "[{",
        "!!a ",
        "&a ",
        "'",
        '"',
        "a: ",
        "[a: ",
        "\t",
        "|\n",
        "- - a\n",
        "\n",
    )
    lines = (
        "- a\n",
        "a: b\n",
        "? a\n",
        "a\n",
        "#\n",
        "---\n",
        "...\n",
        "%A b\n",
        " ",
        "name: x\n",
        "x" * 101 + ": 1\n",
    )
    return chance.choice(openings + lines) * count


def indented(chance: random.Random, count: int, small: str) -> str:
    depth = min(count, 300)
    return "".join(f"{' ' * n}{chance.choice(['a:', '- -', '- a:'])}\n" for n in range(depth)) + " " * depth + small


def many_values(chance: random.Random, count: int, small: str) -> str:
    if chance.random() < 0.5:
        return f"[{f'{small}, ' * count}]"
    return f"x: {{{', '.join(f'a{n}: {small}' for n in range(count))}}}"


def many_fields(chance: random.Random, count: int, small: str) -> str:
    return "".join(f"{chance.choice(FIELDS)}{n}: {small}\n" for n in range(count))


def many_directives(chance: random.Random, count: int, small: str) -> str:  # noqa: ARG001
    return "".join(f"%TAG !{n}! tag:x\n" for n in range(count)) + "--- a"


def long_text(chance: random.Random, count: int, small: str) -> str:
    if chance.random() < 0.5:
        return f"name: {chance.choice(['9', 'x', 'x ', '1e9', 'é', small]) * count}"
    return f"name: {chance.choice('|>')}\n" + "  x\n" * count


def wrong_list(chance: random.Random, count: int, small: str) -> str:
    """A list of very many sections that are all wrong."""
    items = ("{a: 1}", "{name: cro}", "{name: crop, padding: x}", "x", "{}", "[]", "{name: crop, a: 1, b: 2}", small)
    fields = ("data: {name: mnist, augment: [%s]}", "model: {name: vgg, widths: [%s]}", "train: [%s]")
    return "name: x\n" + chance.choice(fields) % ", ".join([chance.choice(items)] * count)


BOMBS = (laughs, repeated, repeated, indented, many_values, many_fields, many_directives, long_text, wrong_list)


def junk(chance: random.Random) -> Made:
    """The structure of a job file with anything in its fields."""
    tree = yaml.safe_load(chance.choice(list(REAL.values())))
    for _ in range(chance.randint(1, 4)):
        spoil(chance, tree)
    return json.dumps(tree, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass"), []


def spoil(chance: random.Random, tree: Any) -> None:
    """Put anything somewhere in a mapping."""
    node = tree
    while chance.random() < 0.6 and (inner := [child for child in node.values() if isinstance(child, dict)]):
        node = chance.choice(inner)
    key = chance.choice(list(node) or ["x"]) if chance.random() < 0.7 else chance.choice(FIELDS)
    node[key] = copy.deepcopy(chance.choice([chance.choice(VALUES), anything(chance, 3)]))


def anything(chance: random.Random, depth: int) -> Any:
    if depth == 0 or chance.random() < 0.3:
        return chance.choice(VALUES)
    if chance.random() < 0.5:
        return [anything(chance, depth - 1) for _ in range(chance.randint(0, 4))]
    return {chance.choice(FIELDS): anything(chance, depth - 1) for _ in range(chance.randint(0, 4))}


def overridden(chance: random.Random) -> Made:
    """A real job file, and overrides that nobody means."""
    overrides = []
    for _ in range(chance.randint(1, 4)):
        kind = chance.random()
        if kind < 0.5:
            value = chance.choice(SCALARS)
        else:
            value = json.dumps(anything(chance, 2)) if kind < 0.9 else bombs(chance)[0].decode(errors="ignore")[:5000]
        key = chance.choice([*FIELDS, value]) if chance.random() < 0.9 else ""
        overrides.append(f"{key}={value}" if key else value)
    return chance.choice(list(REAL.values())), overrides


KINDS: tuple[Callable[[random.Random], Made], ...] = (noise, slips, moved_lines, traps, bombs, junk, overridden)


def make(seed: int, number: int) -> Made:
    """The input of that number; the same each time."""
    return KINDS[number % len(KINDS)](random.Random(f"{seed} {number}"))
