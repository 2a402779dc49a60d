"""math-verify against the reference answer: 1 for a right answer, 0 for a wrong or an unparsable one."""

from __future__ import annotations

from typing import Literal

from posttrain.rewards.grading import MathVerify
from posttrain.rewards.kinds._verified import Verified
from posttrain.rewards.options import Judged, RewardConfig


class MathVerifyReward(RewardConfig):
    """math-verify against the column `answer`."""

    columns, says_right = ("answer",), True
    name: Literal["math_verify"] = "math_verify"

    def build(self, judged: Judged) -> Verified:
        """With child processes of its own."""
        return Verified(self.name, MathVerify())
