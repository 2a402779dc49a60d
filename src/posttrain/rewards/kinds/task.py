"""The verifier of the generated task that is trained on, 1 for a right answer, else 0; or of the gym, with its own score."""

from __future__ import annotations

from typing import Literal

from posttrain.rewards.grading import Grader, TaskGrader
from posttrain.rewards.kinds._gym import GymGrader
from posttrain.rewards.kinds._verified import Verified
from posttrain.rewards.options import Judged, RewardConfig
from posttrain.settings.data import Generated, GymSource


def verifier(source: Generated) -> Grader:
    """What a generated source judges answers by.

    Raises:
        SetupError: it does not start.
    """
    return GymGrader(source) if isinstance(source, GymSource) else TaskGrader(source.task)


class TaskReward(RewardConfig):
    """The verifier of the generated task or the gym that is trained on."""

    columns, says_right = ("answer",), True
    name: Literal["task"] = "task"

    def build(self, judged: Judged) -> Verified:
        """Of the source, which is generated."""
        assert isinstance(judged.source, Generated)  # the recipe has been checked
        return Verified(self.name, verifier(judged.source))
