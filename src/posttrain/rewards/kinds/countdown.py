"""Countdown: an expression of given numbers, each used once, that makes a target."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Literal

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.options import Judged, RewardConfig
from posttrain.rewards.reading.answers import last_box
from posttrain.rewards.values import Refused

LONGEST = 200  # characters of an expression
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_WRITTEN = {"\\times": "*", "\\cdot": "*", "×": "*", "·": "*", "\\div": "/", "÷": "/", "−": "-", "$": ""}


class CountdownReward(RewardConfig):
    """An expression of the column `nums` that makes `target`."""

    columns, says_right = ("nums", "target"), True
    name: Literal["countdown"] = "countdown"

    def build(self, judged: Judged) -> Countdown:
        """Nothing is started."""
        return Countdown()


class Countdown:
    r"""1 where the expression in the last <answer>…</answer>, or else the whole last line, uses every number of the column
    `nums` once and makes `target`; else 0. Of a line with a `\boxed{}`, what is in it; of an equation, its left side. Exact
    fractions; nothing is executed.
    """

    name = "countdown"
    columns = ("nums", "target")

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        numbers, target = _whole_numbers(group.columns["nums"]), _number("target", group.columns["target"])
        return [self._one(completion, numbers, target) for completion in group.completions]

    def _one(self, completion: str, numbers: Sequence[int], target: Fraction) -> Judgement:
        said = completion.rpartition("<answer>")[2].partition("</answer>")[0].strip()
        line = said.rpartition("\n")[2]
        inside = last_box(line)
        expression = (line if inside is None else inside).partition("=")[0]
        for written, meant in _WRITTEN.items():
            expression = expression.replace(written, meant)
        expression = expression.strip(" .")
        right = solves(expression, numbers, target)
        return Judgement(float(right), right, expression or None)

    def close(self) -> None:
        """Nothing was started."""


def solves(expression: str, numbers: Sequence[int], target: Fraction) -> bool:
    """Whether an expression of +, -, *, / and parentheses uses the numbers, each once, and makes the target."""
    if len(expression) > LONGEST or not re.fullmatch(r"[0-9+\-*/() ]+", expression):
        return False
    if sorted(map(int, re.findall(r"[0-9]+", expression))) != sorted(numbers):
        return False
    try:
        return _value(ast.parse(expression, mode="eval").body) == target
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return False


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError(f"not plain arithmetic: {ast.dump(node)}")


def _whole_numbers(given: Any) -> list[int]:
    numbers = [] if isinstance(given, str) or not isinstance(given, Iterable) else [_number("nums", one) for one in given]
    if not numbers or any(number.denominator != 1 for number in numbers):
        raise Refused(f"the column nums holds {given!r:.80}, and a list of whole numbers is expected")
    return [number.numerator for number in numbers]


def _number(column: str, given: Any) -> Fraction:
    try:
        return Fraction(str(given))
    except (ValueError, ZeroDivisionError):
        raise Refused(f"the column {column} holds {given!r:.80}, and a number is expected") from None
