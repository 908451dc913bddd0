"""YAML's traps are closed: each gives a plain value or an ordinary error with its line."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SpecError
from pipeline.jobfile import yamltree


def read(text: str | bytes) -> Any:
    return yamltree.parse(text if isinstance(text, bytes) else text.encode(), "x.yaml").plain()


def errors(text: str | bytes) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read(text)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("5e-4", 5e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("3.", 3.0),
        ("-2", -2),
        ("+2", 2),
        ("0", 0),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("false", False),
        ("True", "True"),
        ("012", "012"),
        ("0x1f", "0x1f"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("null", None),
        ("~", None),
        ("'5'", "5"),
        ('"true"', "true"),
        ('""', ""),
        ("9" * 30, int("9" * 30)),
        ("9" * 400, float("inf")),
        ("=", "="),
    ],
    ids=lambda value: repr(value)[:25],
)
def test_a_scalar_means_what_it_looks_like(text: str, value: Any) -> None:
    read_value = read(f"key: {text}")["key"]
    assert (type(read_value), read_value) == (type(value), value)


def test_keys_are_text() -> None:
    assert read("{1: a, true: b, no: c, 1e3: d, ~: e}") == {"1": "a", "true": "b", "no": "c", "1e3": "d", "~": "e"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_ending_counts_lines_alike(end: str) -> None:
    root = yamltree.parse(end.join(["a: 1", "b:", "  c: 2", ""]).encode(), "x.yaml")
    assert [(node.key_line, node.line) for _, node in yamltree.walk(root, ("b", "c"))] == [(2, 3), (3, 3)]


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert read(b"\xef\xbb\xbfname: x\n") == {"name": "x"}


def test_an_empty_file_is_nothing() -> None:
    assert read("") is None
    assert read("# only a comment\n") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", ["x.yaml:3: key 'a' is given a second time; the first is on line 1"]),
        (
            "a: &x 1\nb: *x\n",
            [
                "x.yaml:1: anchor '&x' is refused; write the value out where it is needed",
                "x.yaml:2: alias '*x' is refused; write the value out",
            ],
        ),
        ("a: 1\n<<: {b: 1}\n", ["x.yaml:2: merge key '<<' is refused; write its fields out"]),
        ("a: !!str 1\n", ["x.yaml:1: tag '!!str' is refused; a job file holds plain values"]),
        ("a: !x 1\n", ["x.yaml:1: tag '!x' is refused; a job file holds plain values"]),
        ("a: ! 1\n", ["x.yaml:1: tag '!' is refused; a job file holds plain values"]),
        (
            "a: !!python/object/apply:os.system ['true']\n",
            ["x.yaml:1: tag '!!python/object/apply:os.system' is refused; a job file holds plain values"],
        ),
        ("a: 1\n---\nb: 2\n", ["x.yaml:2: a second document starts here; a job file is one document"]),
        ("a: 1\n? [b, c]\n: 2\n", ["x.yaml:2: a key must be a plain word, not a list or a mapping"]),
        (f"{'k' * 101}: 1\n", ["x.yaml:1: a key is longer than 100 characters"]),
        (b"a: 1\nb: caf\xe9\n", ["x.yaml:2: byte 0xe9 is not UTF-8 text; save it as UTF-8"]),
        ("a: 1\n".encode("utf-16"), ["x.yaml:1: byte 0xff is not UTF-8 text; save it as UTF-8"]),
        (b"a: 1\nb: x\x00y\n", ["x.yaml:2: the character U+0000 is not allowed in YAML"]),
        ('a: 1\nb: "x\\0y"\n', ["x.yaml:2: the character U+0000 is refused in text"]),
        ('a: "\\e[2J"\n', ["x.yaml:1: the character U+001B is refused in text"]),
        ('a: "\\ud800"\n', ["x.yaml:1: the character U+D800 is refused in text"]),
        (b"a: \xed\xa0\x80\n", ["x.yaml:1: byte 0xed is not UTF-8 text; save it as UTF-8"]),
        ('a: 1\nb: "\\U00110000"\n', ["x.yaml:2: not valid YAML: a number in an escape or directive is too large"]),
        (
            f"%YAML 1.{'1' * 5000}\n---\na: 1\n",
            ["x.yaml:1: not valid YAML: a number in an escape or directive is too large"],
        ),
        ("#" * 65_537, ["x.yaml: is 65,537 bytes long; a job file has at most 65,536"]),
        ("[" * 20_000, ["x.yaml:1: nested deeper than 20 levels"]),
        ("a: " + "{b: " * 10_000, ["x.yaml:1: nested deeper than 20 levels"]),
        ("a:\n" + "- 1\n" * 5000, ["x.yaml:4999: more than 5,000 keys and values are in it"]),
        (f"a: *{'x' * 5000}\n", [f"x.yaml:1: alias '*{'x' * 56}...' is refused; write the value out"]),
    ],
    ids=lambda value: repr(value)[:25],
)
def test_a_trap_is_an_error_with_its_line(text: str | bytes, expected: list[str]) -> None:
    assert errors(text) == expected


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("a:\n\tb: 1\n", 2, "indent with spaces, not tabs"),
        ("a: 1\nb: @x\n", 2, "put text that begins so in quotes"),
        ("a: 1\nb: c: d\n", 2, "put text that has ': ' in it in quotes"),
        ("a:\n   b: 1\n  c: 2\n", 3, "is it indented as the lines around it?"),
        ("a: 1\nb: {c: 1\nd: 2\n", 3, "it began on line 2"),
        ("a: 1\nb: 'x\nc: 2\n", 4, "it began on line 2"),
    ],
)
def test_a_slip_in_the_syntax_is_met_with_a_hint(text: str, line: int, hint: str) -> None:
    (message,) = errors(text)
    assert message.startswith(f"x.yaml:{line}: not valid YAML: ")
    assert hint in message


def test_everything_that_is_refused_is_told_at_once() -> None:
    found = errors("a: &x 1\nb: !!int 2\na: *x\nc: [\n")
    assert [message.split(": ")[0] for message in found] == ["x.yaml:1", "x.yaml:2", "x.yaml:3", "x.yaml:3", "x.yaml:5"]


def test_an_alias_bomb_is_told_line_by_line_and_never_expanded() -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for last, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{','.join([f'*{last}'] * 9)}]")
    bomb = "\n".join(lines)
    assert len(bomb) < 500
    assert len(errors(bomb)) == 9 + 8


def test_of_thousands_of_refusals_a_hundred_are_told_even_if_the_syntax_is_wrong_too() -> None:
    for end in ("", "b: [\n"):
        found = errors("".join(f"a{number}: *x\n" for number in range(2000)) + end)
        assert len(found) == 101
        assert found[-1] == "x.yaml: and more; mend these first"


def test_the_largest_file_and_the_deepest_nesting_are_read() -> None:
    assert read("a: 1\n" + "#" * (yamltree.MAX_BYTES - 5)) == {"a": 1}
    deepest: Any = read("a: " + "[" * 19 + "]" * 19)["a"]
    for _ in range(18):
        (deepest,) = deepest
    assert deepest == []


PIECES = [
    *"[]{},:&*!|>-?%@#'\"\\ \n\t\0~a1.\x85\u2028\ufeff",
    *("\r\n", "---\n", "...\n", "<<: ", "a: ", "- ", "&x ", "*x", "!!int ", "%YAML 1.1\n", "  "),
    *("\\U00110000", "\\ud800", "1e-3"),
]
YAMLISH = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=100) | YAMLISH.map(str.encode))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(SpecError):
        yamltree.parse(data, "x.yaml")
