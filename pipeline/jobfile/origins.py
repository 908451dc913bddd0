"""Where each field of a job was given: in which line of its file, or in which override."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipeline import wording
from pipeline.errors import Problem, SpecError, UsageError
from pipeline.jobfile import yamltree
from pipeline.jobfile.spec import split
from pipeline.jobfile.yamltree import Node

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from pipeline.jobfile.spec import Keys


class Origins:
    """A file's tree with overrides applied to it, and where each of its fields is from."""

    def __init__(self, source: str, root: Node) -> None:
        self.source, self.root = source, root
        self.overridden: dict[int, str] = {}  # id of a node -> the override that it came from
        self.written: dict[str, Any] = {}  # the tree as plain data, with a sweep's first values in it
        self.files: dict[str, str] = {}  # of the user's own, that the other jobs of a sweep need

    def override(self, text: str) -> None:
        key, separator, value = text.partition("=")
        path = key.strip().split(".")
        source = f"--set {wording.cut(text)}"
        if not separator or not all(path) or len(path) > yamltree.MAX_DEPTH:
            raise UsageError(f"{source}: write it as key=value, for example --set train.epochs=3")
        try:
            new = yamltree.parse(value.encode("utf-8", "surrogatepass"), source)
            if "#" in value and not _is_without_comment(value, new.plain()):
                raise UsageError(f"{source}: what follows # is a comment; put it in quotes: {key}='\"a # b\"'")
        except SpecError as error:
            raise SpecError([problem._replace(line=0) for problem in error.problems]) from None
        self.mark(new, source)
        self.put(path, new, source, 0)

    def put(self, path: Sequence[str], new: Node, source: str, line: int) -> Callable[[], None]:
        """Give a field another value, and return what undoes that. Raises SpecError where the field can be none.

        source, line: where the value was given.
        """
        undo: Callable[[], None] | None = None
        node = self.root
        for part in path[:-1]:
            child = node.child(part)
            if child is None or child.value is None:
                undo = undo or _restoring(node, part)
                child = node.value[part] = Node(line, {}, 0)
                if not line:
                    self.overridden[id(child)] = source
            if not isinstance(child.value, dict):
                whole = "; give the whole list" if isinstance(child.value, list) else ""
                problem = f"'{part}' is {wording.short(child.plain())}, which has no fields of its own{whole}"
                raise SpecError([Problem(source, line, ".".join(path), problem)])
            node = child
        undo = undo or _restoring(node, path[-1])
        node.value[path[-1]] = new
        return undo

    def mark(self, node: Node, source: str) -> Node:
        """Remember that a node, and all in it, came from an override."""
        self.overridden[id(node)] = source
        children = node.value.values() if isinstance(node.value, dict) else node.value
        for child in children if isinstance(node.value, (dict, list)) else ():
            self.mark(child, source)
        return node

    def find(self, path: Keys, *, of_key: bool = False) -> tuple[str, int]:
        """The source, and the line in it, of a field or of the last there is of what it lies in."""
        source, line = self.source, self.root.line
        for depth, (_, node) in enumerate(yamltree.walk(self.root, path), start=1):
            if id(node) in self.overridden:
                source, line = self.overridden[id(node)], 0
            else:
                line = node.key_line if of_key and depth == len(path) and node.key_line else node.line
        return source, line

    def of_error(self, path: Keys, detail: ErrorDetails) -> tuple[str, int]:
        """The source and line to tell with an error at `path`."""
        source, line = self.find(path, of_key=detail["type"] == "extra_forbidden")
        conflict = detail.get("ctx", {}).get("conflict")
        for field in map(split, conflict.depends if conflict and line else ()):
            other, other_line = self.find(field)
            if not other_line and len(list(yamltree.walk(self.root, field))) == len(field):
                source, line = other, 0  # the override that changed what the field depends on
        return source, line


def _is_without_comment(value: str, read: Any) -> bool:
    """Whether no # of a text begins a comment: with another mark in its place it says the same."""
    mark = "\ufdd0"  # no character of any text
    try:
        marked = yamltree.parse(value.replace("#", mark).encode("utf-8", "surrogatepass"), "").plain()
    except SpecError:
        return False
    return bool(_with_hashes(marked, mark) == read)


def _with_hashes(value: Any, mark: str) -> Any:
    if isinstance(value, str):
        return value.replace(mark, "#")
    if isinstance(value, list):
        return [_with_hashes(inner, mark) for inner in value]
    return {key: _with_hashes(inner, mark) for key, inner in value.items()} if isinstance(value, dict) else value


def _restoring(node: Node, key: str) -> Callable[[], None]:
    """What makes a mapping have at a key what it has there now."""
    fields, before = node.value, node.value.get(key)

    def restore() -> None:
        if before is None:
            fields.pop(key, None)
        else:
            fields[key] = before

    return restore
