"""What every reward can be told in a recipe, and what it is built for. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from posttrain.rewards.base import DEADLINE, Reward
from posttrain.rewards.values import MAX_WEIGHT
from posttrain.settings.base import Config, Share
from posttrain.settings.data import Mixture, Source


@dataclass(frozen=True, slots=True)
class Judged:
    """What a reward judges: answers to the questions of a source, of at most `max_tokens` tokens."""

    source: Source | Mixture
    max_tokens: int


class RewardConfig(Config, ABC):
    """What every reward can be told."""

    columns: ClassVar[tuple[str, ...]] = ()
    """Columns of the data that it reads."""
    says_right: ClassVar[bool] = False
    """It can say which answers are right."""

    name: str
    """Which reward; the other keys here are its options."""
    weight: Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)] = 1.0
    """In the sum of all rewards; 0 only watches."""
    verdict: bool = False
    """It says which answers are right; where no reward is marked, the first that compares with a label does."""
    max_error_rate: Share = 0.2
    """A run whose reward fails more often (timeout, crash, an exception, NaN) ends with exit code 7."""

    @property
    def label(self) -> str:
        """Under which it is logged."""
        return self.name

    @model_validator(mode="after")
    def _can_say_what_is_right(self) -> RewardConfig:
        if self.verdict and not self.says_right:
            raise ValueError(f"verdict: {self.name} does not say which answers are right")
        return self

    @property
    def deadline_of_group(self) -> float:
        """Seconds after which judging a group has failed."""
        return DEADLINE

    @abstractmethod
    def build(self, judged: Judged) -> Reward:
        """The reward, started.

        Raises:
            SetupError: it does not start.
            RecipeError: it does not fit what it is to judge.
        """
