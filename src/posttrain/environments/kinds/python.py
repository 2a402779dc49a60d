"""Programs are asked for, and run behind bars: as a tool, and at the end, where tests decide that the policy never sees."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.environments.base import Environment, Message, Start, Step, Turn
from posttrain.environments.kinds._drawn import drawn
from posttrain.environments.kinds._templates import fields
from posttrain.environments.options import EnvironmentConfig
from posttrain.environments.tools import Tools
from posttrain.rewards.isolated.jail.options import Jailed
from posttrain.rewards.isolated.jail.running import Ran
from posttrain.rewards.isolated.jail.tested import Tested, Tester, read_tests
from posttrain.rewards.kinds.unit_tests import Around, program
from posttrain.settings.base import NonNegative

Function = Callable[[int], int]
Shape = Literal["line", "square", "bounded", "rest"]
SHAPES: Mapping[Shape, tuple[str, Callable[[int, int], Function]]] = {
    "line": ("{a}*x+{b}", lambda a, b: lambda x: a * x + b),
    "square": ("x*x+{a}*x-{b}", lambda a, b: lambda x: x * x + a * x - b),
    "bounded": ("max(x-{a},{b})", lambda a, b: lambda x: max(x - a, b)),
    "rest": ("x%{b}+{a}", lambda a, b: lambda x: x % b + a),
}
"""Of the functions that are asked for: a program, and what it computes."""
SHOWN, HIDDEN, FARTHEST = 3, 5, 20  # values of a function that the policy is told, others that decide, and how far they lie
SAID = 1_000  # characters of what a program prints, and of an error, that the policy is told


class PythonConfig(Jailed, EnvironmentConfig):
    """A program is written, with the tool run that tries code; tests that are not shown decide.

    A row with the columns prompt and tests is asked its prompt; tests of a column visible are tried between attempts.
    """

    says_right: ClassVar[bool] = True
    makes_tasks: ClassVar[bool] = True

    name: Literal["python"] = "python"
    attempts: Annotated[int, Field(ge=1, le=20)] = 1
    """At a program. One that fails the visible tests is answered by what went wrong, as long as there are more."""
    score: Literal["outcome", "share"] = "outcome"
    """What the last program is paid: CodeRL's, -1 where it does not compile, -0.6 where it fails, -0.3 where a test does, 1
    where it is right; or the share of tests passed."""
    cost: NonNegative = 0.0
    """Of each call of run."""
    around: Around = "{program}"
    """What is run of a turn's program, as "f = lambda x: {program}"."""
    shapes: Annotated[list[Shape], Field(min_length=1)] = ["line", "square", "bounded", "rest"]
    """Of the functions that made tasks ask for."""
    largest: Annotated[int, Field(ge=1, le=1000)] = 9
    """Of the numbers in them."""
    words: bool = True
    """Made tasks are told in words; else as 2:7,5:13=."""
    question: Annotated[str, fields("task", needed=True)] = (
        "{task}\nWrite the whole program in a block that begins with ```python and ends with ```."
    )
    """What the policy is asked; {task} is the row's prompt, or what is made."""

    def build(self) -> Callable[[], Environment]:
        """With its jail started."""
        return Programs(self)


class Programs:
    """Makes environments that share a jail."""

    def __init__(self, config: PythonConfig) -> None:
        self._config, self._tester = config, Tester(config.jailed())

    def __call__(self) -> Python:
        return Python(self._config, self._tester)

    def close(self) -> None:
        """Ends the jail."""
        self._tester.close()


@dataclass(frozen=True, slots=True)
class PythonTask:
    """What is asked for, the tests that are shown, those that decide, and a program that is right."""

    text: str
    visible: Any
    hidden: Any
    right: str = ""


class Python:
    """An `Environment`. The jail keeps its time: programs that wait for a processor miss no deadline."""

    keeps_time = True

    def __init__(self, config: PythonConfig, tester: Tester) -> None:
        self._config, self._tester, self._left = config, tester, config.attempts
        self._tools, self._task = Tools(self.run), PythonTask("", None, None)

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        """See `Environment`."""
        self._task = task_of(columns, self._config)
        asked = self._config.question.format(task=self._task.text)
        return Start([{"role": "user", "content": asked}], self._tools.schemas if self._config.format != "none" else ())

    async def step(self, turn: Turn) -> Step:
        """See `Environment`."""
        if turn.calls:
            said: Sequence[Message] = await self._tools.answer(turn.calls)
            return Step(said, reward=0.0 - self._config.cost * len(turn.calls), info={"correct": False})
        self._left -= 1
        text = program(turn.text)
        whole = None if text is None else self._config.around.replace("{program}", text)
        if self._left and (fault := await self._seen(whole)) is not None:
            return Step([{"role": "user", "content": fault}], reward=0.0, info={"correct": False, "program": text or ""})
        found = await self._tested(whole, self._task.hidden)
        info = {"correct": found.outcome == "passed", "answer": text or "", "outcome": found.outcome, "passed": found.share}
        return Step(reward=found.score(self._config.score), done=True, info=info)

    async def run(self, code: Annotated[str, Field(description="A program of Python; what it prints is shown.")]) -> str:
        """Runs Python."""
        return shown(await asyncio.to_thread(self._tester.jail.run, code))

    async def close(self) -> None:
        """See `Environment`."""

    async def _seen(self, whole: str | None) -> str | None:
        """What is wrong with a program, as far as the visible tests show it; None: nothing."""
        if self._task.visible is None and isinstance(read_tests(self._task.hidden), Mapping):
            return None  # it reads, and there is nothing to be read yet
        found = await self._tested(whole, self._task.visible or ["None"])
        if found.outcome == "passed":
            return None
        return {"compile": "It does not compile", "runtime": "It fails", "failed": "A test fails"}[found.outcome] + (
            f": {found.says[:SAID]}" if found.says else "."
        )

    async def _tested(self, whole: str | None, tests: Any) -> Tested:
        if whole is None:
            return Tested("compile", 0.0, "there is no program")
        return await asyncio.to_thread(self._tester.of, whole, tests)


def shown(ran: Ran) -> str:
    """What a program printed, and how it ended if not well; addresses, which differ from run to run, are left out."""
    ended = {"time": "It took too long.", "output": "It printed too much.", "killed": "It was killed."}.get(ran.ended, "")
    parts = [part[:SAID].rstrip() for part in (ran.out, ran.err[-SAID:], ended) if part.strip()]
    return re.sub(r"\b0x[0-9a-f]{6,}", "0x…", "\n".join(parts)) or "It printed nothing."


def task_of(columns: Mapping[str, Any], config: PythonConfig) -> PythonTask:
    """The task of a row, its own or made.

    Raises:
        ValueError: it has no tests, or its prompt is a conversation.
    """
    if "prompt" not in columns:
        return drawn(columns, lambda draw: _made(draw, config), lambda task: task.right)
    if not isinstance(columns["prompt"], str) or columns.get("tests") is None:
        raise ValueError("a row with a column prompt has a text there, and tests in the column tests")
    return PythonTask(columns["prompt"], columns.get("visible"), columns["tests"])


def _made(draw: Random, config: PythonConfig) -> PythonTask:
    written, made = SHAPES[draw.choice(config.shapes)]
    a, b = draw.randint(1, config.largest), draw.randint(1, config.largest)
    numbers = draw.sample(range(FARTHEST), SHOWN + HIDDEN)
    values = {x: made(a, b)(x) for x in numbers}
    first, others = (list(values.items())[part] for part in (slice(SHOWN), slice(SHOWN, None)))
    pairs = ", ".join(f"f({x}) is {value}" for x, value in first)
    text = f"Write a function f of a whole number. {pairs}."
    if not config.words:
        text = ",".join(f"{x}:{value}" for x, value in first) + "="
    visible, hidden = ([f"assert f({x}) == {value}" for x, value in part] for part in (first, others))
    return PythonTask(text, visible, hidden, written.format(a=a, b=b))
