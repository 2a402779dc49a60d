"""Arithmetic in several steps, with a calculator as the tool. Questions are made; or are those of the rows, as GSM8K's."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from random import Random
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.data.tasks import split_of
from posttrain.environments.base import Environment, Start
from posttrain.environments.kinds._answering import Answering, AnsweringConfig, Question, asked, same
from posttrain.environments.kinds._drawn import drawn
from posttrain.environments.kinds._templates import fields
from posttrain.environments.tools import Failed

LONGEST = 300  # characters of an expression
DIGITS = 130  # of a number
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_STEP = re.compile(r"([-+*])(\d{1,7})")
_STEPS = re.compile(r"(-?\d{1,100})((?:[-+*]\d{1,7})+)")
_WORDS = {"+": "Add {}.", "-": "Subtract {}.", "*": "Multiply by {}."}


class CalculatorConfig(AnsweringConfig):
    """Arithmetic with the tool calc, the result after ####: chains of + - *, or the rows' own questions.

    A row with the columns prompt and answer is asked its prompt.
    """

    relabels: ClassVar[bool] = True

    name: Literal["calculator"] = "calculator"
    steps: Annotated[int, Field(ge=2, le=20)] = 3
    """Of a chain that is made, the most; 2 are the fewest."""
    largest: Annotated[int, Field(ge=9, le=10**6)] = 100
    """Of its numbers."""
    words: bool = True
    """Chains are told in words; else written as 12+7*3=, which is worked out from the left."""
    question: Annotated[str, fields("question", needed=True)] = (
        "{question}\nUse the tool calc for arithmetic. Write the result alone on the last line, after ####."
    )
    """What the policy is asked; {question} is the task's."""

    def build(self) -> Callable[[], Environment]:
        """See `EnvironmentConfig`."""
        return lambda: Calculator(self)


class Calculator(Answering):
    """An `Environment`."""

    _config: CalculatorConfig

    def __init__(self, config: CalculatorConfig) -> None:
        super().__init__(config, calc)

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        """See `Environment`."""
        return self.begin(asked(columns) or drawn(columns, lambda draw: _chain(draw, self._config), lambda task: task.text))

    async def relabel(self, columns: Mapping[str, Any], infos: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """See `Relabelling`: the chain that the calls have worked out, each from the result of the one before, and the last
        result as it was answered; one that could be asked here, of the same split.
        """
        calls = [(str(said), str(result)) for one in infos for said, result in one.get("called", ())]
        chain = _worked_out(calls)
        if chain is None or not same(str(infos[-1].get("answer", "")), calls[-1][1]):
            return None
        first, steps = chain
        fits = 2 <= len(steps) <= self._config.steps
        if not fits or not all(1 <= number <= self._config.largest for number in (first, *(other for _, other in steps))):
            return None
        task = _told(first, steps, calls[-1][1], self._config)
        if "prompt" not in columns and split_of(task.text) != columns["split"]:
            return None
        return {**columns, "prompt": task.text, "answer": task.answer}

    def plainly(self, said: str) -> str:
        """A number; or ! where there is none, so that a tokenizer of few characters is enough."""
        return said if re.fullmatch(r"-?[\d.]+", said) else "!"


def calc(expression: Annotated[str, Field(description="Numbers with + - * / and parentheses.")]) -> str:
    """Works out an arithmetic expression."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", expression.strip().rstrip("=").strip()).replace("×", "*").replace("÷", "/")
    if len(text) > LONGEST:
        return Failed(f"The expression is longer than {LONGEST} characters.")
    try:
        return _shown(_value(ast.parse(text, mode="eval").body))
    except ZeroDivisionError:
        return Failed("It divides by 0.")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Failed("It is no arithmetic expression of numbers, + - * / and parentheses.")


def _value(node: ast.expr) -> Fraction:
    """Of a tree of numbers and the four operators; nothing of it is executed."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = Fraction(str(node.value))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand) * (-1 if isinstance(node.op, ast.USub) else 1)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        value = _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    else:
        raise ValueError("not plain arithmetic")
    if max(abs(value.numerator), value.denominator) >= 10**DIGITS:
        raise ValueError("too large")
    return value


def _shown(value: Fraction) -> str:
    """A whole number, or a decimal one of at most 6 places."""
    if value.denominator == 1:
        return str(value.numerator)
    whole, part = divmod(round(abs(value) * 10**6), 10**6)
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{part:06}".rstrip("0").rstrip(".")


def _chain(draw: Random, config: CalculatorConfig) -> Question:
    first = value = draw.randint(1, config.largest)
    steps = list[tuple[str, int]]()
    for _ in range(draw.randint(2, config.steps)):
        sign, other = draw.choice("+-*"), draw.randint(1, config.largest)
        value = _SIGNS[sign](value, other)
        steps.append((sign, other))
    return _told(first, steps, str(value), config)


def _told(first: int, steps: Sequence[tuple[str, int]], answer: str, config: CalculatorConfig) -> Question:
    """A chain in words, or as it is written."""
    if not config.words:
        return Question(f"{first}{''.join(f'{sign}{other}' for sign, other in steps)}=", answer)
    told = [f"Start with {first}.", *(_WORDS[sign].format(other) for sign, other in steps)]
    return Question(f"{' '.join(told)} What is the result?", answer)


def _worked_out(calls: Sequence[tuple[str, str]]) -> tuple[int, list[tuple[str, int]]] | None:
    """The first number and the steps of a chain that calls have worked out from the left, each from the result of the one
    before; None where they have not.
    """
    first, value, steps = None, None, list[tuple[str, int]]()
    for said, result in calls:
        found = _STEPS.fullmatch(said.replace(" ", "").rstrip("="))
        if found is None or (value is not None and int(found[1]) != value):
            return None
        value = int(found[1])
        first = value if first is None else first
        for sign, other in _STEP.findall(found[2]):
            value = _SIGNS[sign](value, int(other))
            steps.append((sign, int(other)))
        if str(value) != result:  # it has * before + as calc has, or could not be worked out
            return None
    return None if first is None else (first, steps)
