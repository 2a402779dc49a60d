"""The final answer, letter by letter, against the reference: 1 for a right one, 0 for another or for none."""

from __future__ import annotations

from typing import Literal

from posttrain.rewards.grading import ExactMatch
from posttrain.rewards.kinds._verified import OfAnswers


class ExactMatchReward(OfAnswers):
    """The final answer, letter by letter, against the column `answer`."""

    name: Literal["exact_match"] = "exact_match"

    def grader(self) -> ExactMatch:
        """Nothing is started."""
        return ExactMatch(reads_cut_off=self.reads_cut_off)
