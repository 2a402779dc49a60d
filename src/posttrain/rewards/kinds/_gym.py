"""The verifiers of reasoning-gym, which read answers with what each gym has, in child processes that end when they hang."""

from __future__ import annotations

import re
import sys

from posttrain.data.sources.gym import environment, index_of
from posttrain.rewards.grading import Grade, Verdict
from posttrain.rewards.isolated.child import ChildDied
from posttrain.rewards.isolated.pool import Pool
from posttrain.settings.data import GymSource

DEADLINE = 5.0  # seconds of the child's own for one answer
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class GymGrader:
    """A gym's own verifier: its score, and right where that is 1. Of a completion it is given what stands in the last
    `<answer>…</answer>`, or all of one that has none.

    Args:
        source: the questions.
        deadline: seconds for an answer.

    Raises:
        SetupError: reasoning-gym is not installed.
    """

    reads_cut_off = False

    def __init__(self, source: GymSource, deadline: float = DEADLINE) -> None:
        self._source, self._deadline = source, deadline
        command = [sys.executable, "-P", "-m", "posttrain.rewards.isolated.gym_child"]
        self._pool = Pool(command, what="The verifiers of reasoning-gym do not start", environment=environment(), quiet=True)

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        """Asks the gym; what is no question of it has no reference."""
        index, found = index_of(self._source, prompt), self.answer(completion)
        if index is None:
            return Grade(Verdict.BAD_REFERENCE, found)
        if found is None:
            return Grade(Verdict.UNPARSABLE, None, 0.0)
        try:
            score = self._ask(found, index)
        except TimeoutError:
            return Grade(Verdict.TIMEOUT, None)
        except ChildDied:
            return Grade(Verdict.CRASH, None)
        if score is None:
            return Grade(Verdict.UNPARSABLE, found, 0.0)
        return Grade(Verdict.RIGHT if score >= 1 else Verdict.WRONG, found, score)

    def answer(self, completion: str) -> str | None:
        """What is read of it."""
        tagged = _TAGGED.findall(completion)
        return (tagged[-1] if tagged else completion).strip() or None

    def equal(self, first: str, second: str) -> bool:
        """Whether both are written alike."""
        return self.answer(first) == self.answer(second)

    def close(self) -> None:
        """Kills the children."""
        self._pool.close()

    def _ask(self, answer: str, index: int) -> float | None:
        return self._pool.ask({"source": self._source.model_dump(), "index": index, "answer": answer}, self._deadline)
