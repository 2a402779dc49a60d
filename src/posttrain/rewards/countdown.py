"""Countdown: an expression of given numbers, each used once, that makes a target."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Sequence
from fractions import Fraction

from posttrain.rewards.base import Group, Judgement

LONGEST = 200  # characters of an expression
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class Countdown:
    """1 where the expression in the last <answer>…</answer>, or else the whole last line, uses every number of the column
    `nums` once and makes `target`; else 0. An equation's left side counts. Exact fractions; nothing is executed.
    """

    name = "countdown"
    columns = ("nums", "target")

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        numbers, target = [int(n) for n in group.columns["nums"]], Fraction(str(group.columns["target"]))
        return [self._one(completion, numbers, target) for completion in group.completions]

    def _one(self, completion: str, numbers: Sequence[int], target: Fraction) -> Judgement:
        said = completion.rpartition("<answer>")[2].partition("</answer>")[0].strip()
        lines = said.splitlines()
        expression = lines[-1].partition("=")[0].strip() if lines else ""
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
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError(f"not plain arithmetic: {ast.dump(node)}")
