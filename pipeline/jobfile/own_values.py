"""Values as a file of the user's own writes them: numbers, text, lists of these, and names that stand for such."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

PLAIN: Mapping[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
MAX_DEPTH = 20  # of names that stand for names
MAX_NAMES = 500  # that are looked up for one signature: ten names of ten names each are thousands of millions
SAFE_INT = 2**63


class NotPlainError(Exception):
    """What is written is not a value, or not the type of one, that a job file can give."""


class Names:
    """What the names of a file stand for: the expressions that it gives them at its top."""

    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self.values, self.left = values, MAX_NAMES

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def __getitem__(self, name: str) -> ast.expr:
        """Raises NotPlainError after too many."""
        self.left -= 1
        if self.left < 0:
            raise NotPlainError
        return self.values[name]


def value_of(node: ast.expr, names: Names, depth: int = 0) -> Any:
    """A number, text, None, or a list or tuple of these, as it is written. Raises NotPlainError for anything else."""
    if depth > MAX_DEPTH:
        raise NotPlainError
    if isinstance(node, ast.Constant) and (node.value is None or type(node.value) in PLAIN.values()):
        return _safe(node.value)
    if isinstance(node, ast.Name) and node.id in names:
        return value_of(names[node.id], names, depth + 1)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        number = number_of(node.operand, names, depth)
        return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = number_of(node.left, names, depth), number_of(node.right, names, depth)
        if isinstance(node.op, ast.Pow) and (abs(left) > 1000 or not 0 <= right <= 60):
            raise NotPlainError
        try:
            return _safe(OPERATORS[type(node.op)](left, right))
        except (ArithmeticError, ValueError):
            raise NotPlainError from None
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [value_of(item, names, depth + 1) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    raise NotPlainError


def _safe(value: Any) -> Any:
    """Raises NotPlainError for a number that JSON, or a file of YAML, could not hold; for text that is none."""
    if isinstance(value, float) and not math.isfinite(value):
        raise NotPlainError
    if isinstance(value, int) and abs(value) >= SAFE_INT:
        raise NotPlainError
    if isinstance(value, str) and not value.isprintable() and any("\ud800" <= char <= "\udfff" for char in value):
        raise NotPlainError
    return value


def number_of(node: ast.expr, names: Names, depth: int) -> int | float:
    value = value_of(node, names, depth + 1)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NotPlainError
    return value


def last_name(node: ast.expr) -> str:
    """`Module` of `torch.nn.Module`; nothing where it is no name."""
    if isinstance(node, ast.Call):
        return last_name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
