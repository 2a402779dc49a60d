"""What rewards of the user's code share in a recipe."""

from __future__ import annotations

from abc import ABC
from typing import Annotated

from pydantic import Field, field_validator

from posttrain.rewards.isolated.own import longest
from posttrain.rewards.options import RewardConfig
from posttrain.settings.doors.code import object_name
from posttrain.settings.doors.door import DoorToProcess

RESERVED = ("mean", "right_minus_wrong")  # reward/mean and reward/right_minus_wrong are metrics of their own


class OwnReward(DoorToProcess, RewardConfig, ABC):
    """Of rewards by path, which run in a process of their own."""

    says_right = True
    deadline: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds for a group in which its process computes or sleeps, after which it is ended; waiting for a busy processor is
    not counted."""

    @property
    def deadline_of_group(self) -> float:
        """Later than its process's own."""
        return longest(self.deadline)

    @field_validator("path")
    @classmethod
    def _has_a_name_of_its_own(cls, path: str) -> str:
        name = object_name(path)
        if name in RESERVED:
            raise ValueError(f"reward/{name} is another metric: give it another name")
        return path
