"""math-verify against the reference answer: 1 for a right answer, 0 for a wrong or an unparsable one."""

from __future__ import annotations

from typing import Literal

from posttrain.rewards.grading import MathVerify
from posttrain.rewards.kinds._verified import OfAnswers


class MathVerifyReward(OfAnswers):
    """math-verify against the column `answer`."""

    name: Literal["math_verify"] = "math_verify"
    only_values: bool = False
    """An answer in which an operation of numbers is left to be carried out, such as 50 + 75, is wrong, unless the reference
    has one too."""

    def grader(self) -> MathVerify:
        """With child processes of its own."""
        return MathVerify(only_values=self.only_values, reads_cut_off=self.reads_cut_off)
