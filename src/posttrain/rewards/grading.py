"""Graders: is this answer right? Right, wrong, unparsable, timeout and crash are different outcomes.

A timeout or a crash says nothing about the answer: it is counted, and taken out of every mean, never scored 0.
"""

from __future__ import annotations

import json
import re
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, Protocol

from posttrain.errors import SetupError
from posttrain.tasks import TASKS

DEADLINE = 2.0  # seconds for one answer; an ordinary one takes 2 ms
START_DEADLINE = 60.0  # seconds for the child to import sympy, on a busy machine


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

    def close(self) -> None:
        """Ends what the grader started."""
        ...


class TaskGrader:
    """The verifier of a generated task."""

    def __init__(self, task: str) -> None:
        self._task = task

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        """Right or wrong; the value is what follows the last `#`."""
        right = TASKS[self._task].verify(completion, prompt, answer)
        return Grade(Verdict.RIGHT if right else Verdict.WRONG, completion.rpartition("#")[2] or None)

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

    def close(self) -> None:
        """Nothing was started."""


class MathVerify:
    """math-verify in a child process, killed at the deadline and started anew."""

    def __init__(self, deadline: float = DEADLINE) -> None:
        self._deadline, self._child = deadline, None
        self._start()

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        """Compares the final answers; a hostile one is out at its deadline."""
        if self._child is None:
            self._start()
        request = {"gold": final_answer(answer), "answer": _as_latex(completion)}
        try:
            reply = self._ask(json.dumps(request), self._deadline)
        except TimeoutError:
            self.close()
            return Grade(Verdict.TIMEOUT, None)
        if reply is None:
            self.close()
            return Grade(Verdict.CRASH, None)
        return Grade(Verdict(reply["verdict"]), reply["value"])

    def close(self) -> None:
        """Kills the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _start(self) -> None:
        command = [sys.executable, "-m", "posttrain.rewards.math_child"]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )
        try:
            ready = self._ask(None, START_DEADLINE)
        except TimeoutError:
            ready = None
        if ready is None:
            self.close()
            raise SetupError("The grader's process did not start. Try: python -m posttrain.rewards.math_child")

    def _ask(self, line: str | None, deadline: float) -> dict[str, str] | None:
        """The child's next line, or None where it ended.

        Raises:
            TimeoutError: there was none before the deadline.
        """
        assert self._child is not None
        source, sink = _pipe(self._child.stdout), _pipe(self._child.stdin)
        try:
            if line is not None:
                sink.write(line + "\n")
                sink.flush()
        except BrokenPipeError:
            return None
        end = time.monotonic() + deadline
        with selectors.DefaultSelector() as ready:
            ready.register(source, selectors.EVENT_READ)
            if not ready.select(max(0.0, end - time.monotonic())):
                raise TimeoutError
        answer = source.readline()
        return json.loads(answer) if answer else None


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def final_answer(text: str) -> str:
    r"""What follows the last `####`, or stands in the last `\boxed{}`, or the whole text."""
    if "####" in text:
        return text.rpartition("####")[2].strip()
    start = text.rfind("\\boxed{")
    if start < 0:
        return text.strip()
    depth = 0
    for i in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : i].strip()
    return text.strip()


def _as_latex(completion: str) -> str:
    found = final_answer(completion)
    if found == completion.strip() or re.search(r"\d\s+[A-Za-z]{2,}", found):
        return found
    return f"${found}$"


def _normal(text: str) -> str:
    return re.sub(r"[\s,$]", "", text).rstrip(".").casefold()


GRADERS = {"math_verify": MathVerify, "exact_match": ExactMatch}
