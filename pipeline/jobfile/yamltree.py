"""Reads YAML into plain data that remembers its lines, with YAML's traps closed.

Differs from YAML 1.1 as PyYAML loads it: `1e-3` is a number, `no` and `on` are text, `012` and `12:30` are text, and
duplicate keys, anchors, aliases, tags, several documents, deep nesting and thousands of values are refused. The reader
works on the parser's events, one at a time, so that neither an alias bomb nor 20,000 opening brackets cost more than an
ordinary error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from pipeline.errors import Problem, SpecError
from pipeline.wording import cut

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20
MAX_KEY = 100
MAX_NODES = 5000  # keys, values and collections; PyYAML takes 30 µs for each
MAX_PROBLEMS = 100  # that are told

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}


class Node:
    """`value` is a scalar, a list of nodes, or a mapping of key to node; `key_line` is 0 where there is no key."""

    def __init__(self, line: int, value: Any, key_line: int = 0) -> None:
        self.line, self.value, self.key_line = line, value, key_line

    def plain(self) -> Any:
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def child(self, key: str | int) -> Node | None:
        if isinstance(self.value, dict):
            return self.value.get(key)
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            node: Node = self.value[key]
            return node
        return None


def scalar(text: str) -> Any:
    """The value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 300:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def parse(data: bytes, source: str) -> Node:
    """The document's root. Raises SpecError with everything that was found wrong."""
    root, problems = read(data, source)
    if problems:
        raise SpecError(problems)
    return root


def read(data: bytes, source: str) -> tuple[Node, list[Problem]]:
    """The document's root, and what is refused but does not hinder reading on. Raises SpecError for what does."""
    if len(data) > MAX_BYTES:
        raise _refused(source, 0, f"is {len(data):,} bytes long; a job file has at most {MAX_BYTES:,}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _refused(source, line, f"byte {data[error.start]:#04x} is not UTF-8 text; save it as UTF-8") from None
    builder = _Builder(source)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        raise builder.syntax_error(error) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _refused(source, line, f"the character U+{error.character:04X} is not allowed in YAML") from None
    except (ValueError, OverflowError):  # of PyYAML's chr() and int(), which it does not guard
        raise _refused(
            source, builder.line, "not valid YAML: a number in an escape or directive is too large"
        ) from None
    return builder.root or Node(1, None), builder.problems


def _refused_character(text: str) -> str | None:
    """The first control character or half of a surrogate pair; a regular expression for these takes 3 ms to compile."""
    if text.isprintable():
        return None
    return next((c for c in text if (c < " " and c not in "\t\n") or c == "\x7f" or "\ud800" <= c <= "\udfff"), None)


def _refused(source: str, line: int, message: str) -> SpecError:
    return SpecError([Problem(source, line, "", message)])


class _Open:
    """A collection that is not closed yet, and the key that waits for its value."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.key: str | None = None
        self.key_line = 0


class _Builder:
    """Makes the tree of the parser's events."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.root: Node | None = None
        self.stack: list[_Open] = []
        self.problems: list[Problem] = []
        self.documents = self.nodes = 0
        self.line = 1  # of the latest event

    def feed(self, event: yaml.Event) -> None:
        self.line = line = event.start_mark.line + 1 if event.start_mark else 0
        self.nodes += isinstance(event, yaml.NodeEvent)
        if self.nodes > MAX_NODES:
            raise _refused(self.source, line, f"more than {MAX_NODES:,} keys and values are in it")
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise _refused(self.source, line, "a second document starts here; a job file is one document")
        elif isinstance(event, yaml.AliasEvent):
            self.problem(line, f"alias {cut(f'*{event.anchor}')!r} is refused; write the value out")
            self.add(Node(line, None))
        elif isinstance(event, yaml.NodeEvent):
            self.check(event, line)
            if isinstance(event, yaml.ScalarEvent):
                self.add(Node(line, self.scalar_value(event, line)))
            else:
                self.open(Node(line, {} if isinstance(event, yaml.MappingStartEvent) else []))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self.stack.pop()

    def check(self, event: yaml.NodeEvent, line: int) -> None:
        if event.anchor is not None:
            self.problem(line, f"anchor {cut(f'&{event.anchor}')!r} is refused; write the value out where it is needed")
        tag = getattr(event, "tag", None)
        if tag is not None:
            written = tag.replace("tag:yaml.org,2002:", "!!")
            self.problem(line, f"tag '{cut(written)}' is refused; a job file holds plain values")
        if self.waits_for_key() and not isinstance(event, yaml.ScalarEvent):
            raise _refused(self.source, line, "a key must be a plain word, not a list or a mapping")

    def scalar_value(self, event: yaml.ScalarEvent, line: int) -> Any:
        value: str = event.value
        refused = _refused_character(value)
        if refused:
            self.problem(line, f"the character U+{ord(refused):04X} is refused in text")
            return None
        return value if self.waits_for_key() or event.style else scalar(value)

    def waits_for_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].node.value, dict) and self.stack[-1].key is None

    def open(self, node: Node) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise _refused(self.source, node.line, f"nested deeper than {MAX_DEPTH} levels")
        self.add(node)
        self.stack.append(_Open(node))

    def add(self, node: Node) -> None:
        if not self.stack:
            self.root = node
            return
        parent = self.stack[-1]
        if isinstance(parent.node.value, list):
            parent.node.value.append(node)
        elif parent.key is None:
            parent.key, parent.key_line = str(node.value), node.line
            if len(parent.key) > MAX_KEY:
                raise _refused(self.source, node.line, f"a key is longer than {MAX_KEY} characters")
            if parent.key == "<<":
                self.problem(node.line, "merge key '<<' is refused; write its fields out")
            if parent.key in parent.node.value:
                first = parent.node.value[parent.key].key_line
                self.problem(node.line, f"key '{parent.key}' is given a second time; the first is on line {first}")
        else:
            node.key_line = parent.key_line
            parent.node.value.setdefault(parent.key, node)
            parent.key = None

    def problem(self, line: int, message: str) -> None:
        """Raises SpecError where there are too many."""
        problem = Problem(self.source, line, "", message)
        if len(self.problems) == MAX_PROBLEMS:
            raise SpecError([*self.problems, and_more(self.source)])
        if problem not in self.problems:
            self.problems.append(problem)

    def syntax_error(self, error: yaml.MarkedYAMLError) -> SpecError:
        mark, began = error.problem_mark or error.context_mark, error.context_mark
        message = "not valid YAML: " + ", ".join(part for part in (error.context, error.problem) if part)
        if mark and began and began.line < mark.line and "block" not in (error.context or ""):
            message += f" (it began on line {began.line + 1})"
        message += next((f"; {hint}" for words, hint in _HINTS.items() if words in message), "")
        return SpecError([*self.problems, Problem(self.source, mark.line + 1 if mark else 0, "", message)])


def and_more(source: str) -> Problem:
    """What is told in the place of further problems."""
    return Problem(source, 0, "", "and more; mend these first")


_HINTS = {
    r"character '\t'": "indent with spaces, not tabs",
    "cannot start any token": "put text that begins so in quotes",
    "mapping values are not allowed here": "put text that has ': ' in it in quotes, and a space after each key's ':'",
    "expected <block end>": "is it indented as the lines around it?",
}
"""What to do about a message of the YAML parser that has these words."""


def walk(node: Node, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, Node]]:
    """The keys of `path` that exist in the tree, with their nodes, from the root down."""
    for key in path:
        child = node.child(key)
        if child is None:
            return
        yield key, child
        node = child
