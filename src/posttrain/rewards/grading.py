"""Graders: is this answer right? Right, wrong, unparsable, timeout and crash are different outcomes.

A timeout or a crash says nothing about the answer: it is counted, and taken out of every mean, never scored 0.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Any, Protocol

from posttrain.data.tasks import TASKS
from posttrain.rewards.isolated.child import ChildDied
from posttrain.rewards.isolated.pool import Pool
from posttrain.rewards.reading.answers import final_answer, read

DEADLINE = 2.0  # seconds of the child's own for one answer; an ordinary one takes 2 ms


class Verdict(StrEnum):
    """The outcome of grading one answer."""

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
    score: float | None = None
    """Of a verifier that gives parts of a point; of others 1 for a right answer, else 0."""


class Grader(Protocol):
    """Grades one completion of a prompt against the reference answer."""

    @property
    def reads_cut_off(self) -> bool:
        """Whether an answer that was cut off is an answer."""
        ...

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        """Never raises on a completion, whatever it holds."""
        ...

    def answer(self, completion: str) -> str | None:
        """What the completion votes for among others of its prompt; None: nothing.

        Raises:
            TimeoutError, ChildDied: nobody knows.
        """
        ...

    def equal(self, first: str, second: str) -> bool:
        """Whether two completions give the same answer, in either order.

        Raises:
            TimeoutError, ChildDied: nobody knows.
        """
        ...

    def close(self) -> None:
        """Ends what the grader started."""
        ...


class TaskGrader:
    """The verifier of a generated task; it asks for the form of the whole completion, cut off or not."""

    reads_cut_off = True

    def __init__(self, task: str) -> None:
        self._task = task

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        """Right or wrong, and what was answered."""
        right = TASKS[self._task].verify(completion, prompt, answer)
        return Grade(Verdict.RIGHT if right else Verdict.WRONG, self.answer(completion))

    def answer(self, completion: str) -> str | None:
        """The answer in the task's own form."""
        return TASKS[self._task].answer(completion)

    def equal(self, first: str, second: str) -> bool:
        """Whether both are written alike in that form."""
        return self.answer(first) == self.answer(second)

    def close(self) -> None:
        """Nothing was started."""


class ExactMatch:
    """The final answer must be the reference's, letter by letter but for case, spaces and thousands' commas.

    Args:
        reads_cut_off: answers that were cut off are read too.
    """

    def __init__(self, *, reads_cut_off: bool = False) -> None:
        self.reads_cut_off = reads_cut_off

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        """Compares `final_answer` of both."""
        found = _normal(final_answer(completion))
        if not found:
            return Grade(Verdict.UNPARSABLE, None)
        return Grade(Verdict.RIGHT if found == _normal(final_answer(answer)) else Verdict.WRONG, found)

    def answer(self, completion: str) -> str | None:
        """The final answer without case, spaces and thousands' commas."""
        return _normal(final_answer(completion)) or None

    def equal(self, first: str, second: str) -> bool:
        """Whether the answers are written alike, but for that."""
        return self.answer(first) == self.answer(second)

    def close(self) -> None:
        """Nothing was started."""


class MathVerify:
    """math-verify in child processes, killed at the deadline and started anew; from several threads at once, in several.

    Args:
        deadline: seconds for an answer.
        only_values: an answer in which an operation of numbers is left to be carried out, as in 50 + 75, is wrong, unless the
            reference has one too.
        reads_cut_off: answers that were cut off are read too.
    """

    def __init__(self, deadline: float = DEADLINE, *, only_values: bool = False, reads_cut_off: bool = False) -> None:
        self._deadline, self._only_values, self.reads_cut_off = deadline, only_values, reads_cut_off
        command = [sys.executable, "-P", "-m", "posttrain.rewards.isolated.mathematics.child"]
        keep = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "LANG")
        environment = {name: value for name, value in os.environ.items() if name in keep}
        self._pool = Pool(command, what="The grader's process", environment=environment, quiet=True)

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        """Compares the final answers; a hostile one is out at its deadline."""
        try:
            reply = self._ask("grade", gold=_found(answer), answer=_found(completion), values=self._only_values)
        except TimeoutError:
            return Grade(Verdict.TIMEOUT, None)
        except ChildDied:
            return Grade(Verdict.CRASH, None)
        return Grade(Verdict(reply["verdict"]), reply["value"])

    def answer(self, completion: str) -> str | None:
        """The value of the final answer, as `grade` gives it."""
        return self._ask("read", answer=_found(completion))

    def equal(self, first: str, second: str) -> bool:
        """Whether either is right where the other is the reference."""
        return self._ask("equal", first=_found(first), second=_found(second))

    def is_valid(self, text: str) -> bool:
        """Whether all of a text is mathematics.

        Raises:
            TimeoutError, ChildDied: nobody knows.
        """
        return self._ask("valid", text=text)

    def close(self) -> None:
        """Kills the children."""
        self._pool.close()

    def _ask(self, what: str, **given: Any) -> Any:
        return self._pool.ask({"do": what, **given}, self._deadline)


def graded(grader: Grader, completion: str, prompt: str, answer: str, *, finished: bool) -> Grade:
    """The grade of a completion; one that was cut off has no answer, unless its grader reads such."""
    if not finished and not grader.reads_cut_off:
        return Grade(Verdict.UNPARSABLE, None)
    return grader.grade(completion, prompt, answer)


def classes(grader: Grader, written: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Which answers are the same, as a grader sees it: a chain of equal ones joins them, in whatever order they come.

    Args:
        grader: compares.
        written: a completion for each answer.

    Returns:
        Each answer's class. One that cannot be compared stays in the class it is in.
    """
    of = {value: frozenset({value}) for value in sorted(written)}
    failed: set[str] = set()
    for one, other in combinations(of, 2):
        if other in of[one] or failed & {one, other}:
            continue
        try:
            if grader.equal(written[one], written[other]):
                joined = of[one] | of[other]
                of.update(dict.fromkeys(joined, joined))
        except (TimeoutError, ChildDied):
            failed |= {one, other}
    return of


def _found(completion: str) -> tuple[str, str]:
    found = read(completion)
    return ("", "all") if found is None else (found.text, found.form)


def _normal(text: str) -> str:
    return re.sub(r"[\s$]", "", _THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)).rstrip(".").casefold()


_THOUSANDS = re.compile(r"(?<![\d,.])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")


GRADERS = {"math_verify": MathVerify, "exact_match": ExactMatch}
