"""Numbers that are shown or said, each with what it is of the walk.

What it is, is written as a formula over the walk's matrices by name, such as `weights[2, 0]` or
`Q[2, 1] * K[0, 1]`, so that whoever doubts a number can work it out again.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.common.wording import percent
from pellucid.errors import ArgumentError
from pellucid.lessons.walk import Kind, Matrix, Walk

DECIMALS = 2
"""The most that are shown: more are hard to read while things move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number that is shown or said."""

    value: float
    text: str
    of: str
    """The formula of it, over the matrices of the walk."""
    kind: Kind = "number"
    decimals: int = DECIMALS


def matrices(walk: Walk) -> dict[str, Matrix]:
    """The matrices of a walk by name."""
    return {matrix.name: matrix for step in walk.steps for matrix in step.matrices}


def text_of(value: float, kind: Kind, decimals: int) -> str:
    """A number as a film shows it, with a minus sign that is one."""
    if kind == "percent":
        return percent(value)
    if kind == "count":
        return f"{value:,.0f}".replace("-", "−")
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    return f"{value:z.{decimals}f}".replace("-", "−")


class Figures:
    """The numbers of a walk, each known by its formula."""

    def __init__(self, walk: Walk) -> None:
        """Know its matrices by name."""
        self.matrices = matrices(walk)
        self.tokens = len(walk.tokens)

    def __contains__(self, name: str) -> bool:
        return name in self.matrices

    def number(self, of: str, kind: Kind = "number", decimals: int = DECIMALS) -> Number:
        """One that is shown."""
        value = self.value(of)
        text = text_of(value, kind, decimals)
        return Number(value=value, text=text, of=of, kind=kind, decimals=decimals)

    def row(self, name: str, row: int, columns: Sequence[int]) -> tuple[Number, ...]:
        """Some of a matrix's row, as that matrix has them shown."""
        kind, decimals = self.matrices[name].kind, min(self.matrices[name].decimals, DECIMALS)
        return tuple(self.number(f"{name}[{row}, {column}]", kind, decimals) for column in columns)

    def value(self, of: str) -> float:
        """What a formula comes to.

        Raises:
            ArgumentError: it is no such formula, or of what is not in the walk.
        """
        try:
            return float(self._value(ast.parse(of, mode="eval").body))
        except (
            SyntaxError,
            KeyError,
            IndexError,
            TypeError,
            ValueError,
            ZeroDivisionError,
        ) as error:
            raise ArgumentError(f"'{of}' is not a number of this walk") from error

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.tokens if node.id == "tokens" else self.matrices[node.id].values
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self._value(node.operand)
        if isinstance(node, ast.BinOp):
            return _OPERATORS[type(node.op)](self._value(node.left), self._value(node.right))
        if isinstance(node, ast.List | ast.Tuple):
            return [self._value(element) for element in node.elts]
        if isinstance(node, ast.Subscript):
            row, column = self._value(node.slice)
            return self._value(node.value)[row][column]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return _FUNCTIONS[node.func.id](*map(self._value, node.args))
        raise ValueError(ast.dump(node))


Values = Sequence[Sequence[float]]


def _rest_sum(values: Values, row: int, columns: Sequence[int]) -> float:
    """What the columns of a row that are not among these have together."""
    return sum(value for column, value in enumerate(values[row]) if column not in columns)


def _hidden(values: Values) -> int:
    return sum(value == -math.inf for row in values for value in row)


_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "sqrt": math.sqrt,
    "rows": len,
    "columns": lambda values: len(values[0]),
    "rest": _rest_sum,
    "hidden": _hidden,
}
