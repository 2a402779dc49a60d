"""The final answer, letter by letter, against the reference: 1 for a right one, 0 for another or for none."""

from __future__ import annotations

from typing import Literal

from posttrain.rewards.grading import ExactMatch
from posttrain.rewards.kinds._verified import Verified
from posttrain.rewards.options import Judged, RewardConfig


class ExactMatchReward(RewardConfig):
    """The final answer, letter by letter, against the column `answer`."""

    columns, says_right = ("answer",), True
    name: Literal["exact_match"] = "exact_match"

    def build(self, judged: Judged) -> Verified:
        """Nothing is started."""
        return Verified(self.name, ExactMatch())
