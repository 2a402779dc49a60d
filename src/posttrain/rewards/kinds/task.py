"""The verifier of the generated task that is trained on: 1 for a right answer, else 0."""

from __future__ import annotations

from typing import Literal

from posttrain.rewards.grading import TaskGrader
from posttrain.rewards.kinds._verified import Verified
from posttrain.rewards.options import Judged, RewardConfig
from posttrain.settings.data import TaskSource


class TaskReward(RewardConfig):
    """The verifier of the generated task that is trained on."""

    columns, says_right = ("answer",), True
    name: Literal["task"] = "task"

    def build(self, judged: Judged) -> Verified:
        """Of the source, which is a task."""
        assert isinstance(judged.source, TaskSource)  # the recipe has been checked
        return Verified(self.name, TaskGrader(judged.source.task))
