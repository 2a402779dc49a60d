"""Questions that are answered after ####, with the help of one tool, called in the recipe's format or in plain text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from posttrain.environments.base import Call, Message, Start, Step, Turn, Unmoved
from posttrain.environments.options import EnvironmentConfig
from posttrain.environments.tools import Function, Tools
from posttrain.rewards.reading.answers import after_thinking
from posttrain.rewards.reading.arguments import Written
from posttrain.settings.base import NonNegative

LONGEST = 200  # characters of an answer that is looked at
_FINAL = re.compile(r"(?<!#)####(?!#)([^\n]*)")
_IMAGINED = re.compile(r"<tool_response>.*?(?:</tool_response>|$)", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d+/[1-9]\d*|\d+(?:\.\d+)?|\.\d+)")


class AnsweringConfig(EnvironmentConfig):
    """What environments of this kind can be told."""

    says_right: ClassVar[bool] = True
    forks: ClassVar[bool] = True
    makes_tasks: ClassVar[bool] = True

    question: str
    """What the policy is asked; {question} is the task's."""
    cost: NonNegative = 0.0
    """Of each call."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and its answer."""

    text: str
    answer: str


class Answering(Unmoved):
    """An `Environment`: the tool answers calls, and the first turn without one is the end.

    Without a format a call is plain text, `tool(…)` to the last parenthesis of the turn; a turn with neither call nor ####
    is answered !.
    """

    def __init__(self, config: AnsweringConfig, tool: Function) -> None:
        self._config, self._name, self._tools, self._answer = config, tool.__name__, Tools(tool), ""

    def begin(self, question: Question) -> Start:
        """What the policy is asked, and the tool where the template tells of it."""
        self._answer = question.answer
        asked = self._config.question.format(question=question.text)
        return Start([{"role": "user", "content": asked}], self._tools.schemas if self._config.format != "none" else ())

    async def step(self, turn: Turn) -> Step:
        """See `Environment`."""
        plain = self._config.format == "none"
        answer = final(turn.text)
        calls = ([] if answer is not None else self._plain(turn.text)) if plain else turn.calls
        if calls:
            said = await self._tools.answer(calls)
            told = [self._told(one) for one in said] if plain else said
            called = [
                [str(next(iter(one.arguments.values()), ""))[:LONGEST], result["content"][:LONGEST]]
                for one, result in zip(calls, said, strict=True)
            ]
            return Step(told, reward=0.0 - self._config.cost * len(calls), info={"correct": False, "called": called})
        if answer is None and plain:
            return Step([{"role": "user", "content": "!"}], reward=0.0, info={"correct": False})
        right = answer is not None and same(answer, self._answer)
        return Step(reward=float(right), done=True, info={"correct": right, "answer": answer or ""})

    def _told(self, said: Message) -> Message:
        marked = {"error": True} if "error" in said else {}
        return {"role": "user", "content": self.plainly(said["content"]), **marked}

    def plainly(self, said: str) -> str:
        """What the tool said, where it is told without a format."""
        return said

    async def close(self) -> None:
        """See `Environment`."""

    def _plain(self, text: str) -> Sequence[Call]:
        _, called, after = (after_thinking(text) or "").partition(f"{self._name}(")
        inside, closed, _ = after.rpartition(")")
        return [Call(self._name, {"0": Written(inside)})] if called and closed else []


def asked(columns: Mapping[str, Any]) -> Question | None:
    """The question of a row with the columns prompt and answer; None where it has no prompt.

    Raises:
        ValueError: it has no answer, or its prompt is a conversation.
    """
    if "prompt" not in columns:
        return None
    prompt, answer = columns["prompt"], columns.get("answer")
    if not isinstance(prompt, str) or answer is None:
        raise ValueError("a row with a column prompt has a text there, and its answer in the column answer")
    return Question(prompt, final(str(answer)) or str(answer).strip())


def final(text: str) -> str | None:
    """What stands after the last #### of a line, behind all thinking; None where there is none.

    Results of tools that the policy imagines are not read.
    """
    found = _FINAL.findall(_IMAGINED.sub("", after_thinking(text) or ""))
    return found[-1].strip()[:LONGEST] if found else None


def same(answer: str, right: str) -> bool:
    """Whether an answer is the right one: the same number, whatever stands around it; or else the same words."""
    number = _number(right)
    if number is None:
        return answer.strip(" .'\"").casefold() == right.strip().casefold()
    return _number(answer) == number


def _number(text: str) -> Fraction | None:
    found = _NUMBER.search(re.sub(r"(?<=\d),(?=\d{3})", "", text[:LONGEST]))
    return None if found is None else Fraction(found[0])
