"""Graders: is this answer right? Right, wrong, unparsable, timeout and crash are different outcomes.

A timeout or a crash says nothing about the answer: it is counted, and taken out of every mean, never scored 0.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from posttrain.rewards.child import Child, ChildDied
from posttrain.tasks import TASKS

DEADLINE = 2.0  # seconds for one answer; an ordinary one takes 2 ms


class Verdict(StrEnum):
    """What came of grading one answer."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    BAD_REFERENCE = "bad_reference"
    TIMEOUT = "timeout"
    CRASH = "crash"

    @property
    def failed(self) -> bool:
        """Nothing is known of the answer."""
        return self in (Verdict.BAD_REFERENCE, Verdict.TIMEOUT, Verdict.CRASH)


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict, and the answer found in the completion in a form in which equal answers are equal."""

    verdict: Verdict
    value: str | None


class Grader(Protocol):
    """Grades one completion of a prompt against the reference answer."""

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        """Never raises on a completion, whatever it holds."""
        ...

    def answer(self, completion: str) -> str | None:
        """What the completion votes for among others of its prompt; None: nothing."""
        ...

    def close(self) -> None:
        """Ends what the grader started."""
        ...


class TaskGrader:
    """The verifier of a generated task."""

    def __init__(self, task: str) -> None:
        self._task = task

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        """Right or wrong, and what was answered."""
        right = TASKS[self._task].verify(completion, prompt, answer)
        return Grade(Verdict.RIGHT if right else Verdict.WRONG, self.answer(completion))

    def answer(self, completion: str) -> str | None:
        """The answer in the task's own form."""
        return TASKS[self._task].answer(completion)

    def close(self) -> None:
        """Nothing was started."""


class ExactMatch:
    """The final answer must be the reference's, letter by letter but for case, spaces and thousands' commas."""

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        """Compares `final_answer` of both."""
        found = _normal(final_answer(completion))
        if not found:
            return Grade(Verdict.UNPARSABLE, None)
        return Grade(Verdict.RIGHT if found == _normal(final_answer(answer)) else Verdict.WRONG, found)

    def answer(self, completion: str) -> str | None:
        """The final answer without case, spaces and commas."""
        return _normal(final_answer(completion)) or None

    def close(self) -> None:
        """Nothing was started."""


class MathVerify:
    """math-verify in a child process, killed at the deadline and started anew."""

    def __init__(self, deadline: float = DEADLINE) -> None:
        self._deadline = deadline
        command = [sys.executable, "-m", "posttrain.rewards.math_child"]
        keep = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "LANG")
        self._child = Child(
            command, what="The grader's process", environment={k: v for k, v in os.environ.items() if k in keep}
        )

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        """Compares the final answers; a hostile one is out at its deadline."""
        try:
            reply = self._child.ask({"gold": final_answer(answer), "answer": _as_latex(completion)}, self._deadline)
        except TimeoutError:
            return Grade(Verdict.TIMEOUT, None)
        except ChildDied:
            return Grade(Verdict.CRASH, None)
        return Grade(Verdict(reply["verdict"]), reply["value"])

    def answer(self, completion: str) -> str | None:
        """The final answer as it is written."""
        return final_answer(completion) or None

    def is_valid(self, text: str) -> bool:
        """Whether all of a text is mathematics.

        Raises:
            TimeoutError, ChildDied: nobody knows.
        """
        return self._child.ask({"valid": text}, self._deadline)

    def close(self) -> None:
        """Kills the child."""
        self._child.close()


def final_answer(text: str) -> str:
    r"""What follows the last `####`, or stands in the last `\boxed{}`, or in a last line `A: …` or `Answer: …`, or all."""
    if "####" in text:
        return text.rpartition("####")[2].strip()
    start = text.rfind("\\boxed{")
    if start < 0:
        line = _ANSWER_LINE.fullmatch(text.rstrip().rpartition("\n")[2])
        return line[1] if line is not None else text.strip()
    depth = 0
    for i in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : i].strip()
    return text.strip()


_ANSWER_LINE = re.compile(r"(?:a|(?:the )?(?:final )?answer)[ \t]*:[ \t]*(\S.*)", re.IGNORECASE)


def _as_latex(completion: str) -> str:
    found = final_answer(completion)
    if found == completion.strip() or re.search(r"\d\s+[A-Za-z]{2,}", found):
        return found
    return f"${found}$"


def _normal(text: str) -> str:
    return re.sub(r"[\s,$]", "", text).rstrip(".").casefold()


GRADERS = {"math_verify": MathVerify, "exact_match": ExactMatch}
