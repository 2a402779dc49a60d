"""What a recipe says of its rewards. No torch here."""

from __future__ import annotations

from typing import Literal

from posttrain.algorithms.base import Config


class RewardConfig(Config):
    """A judge of answers. `task` is the verifier of the generated task that is trained on."""

    name: Literal["math_verify", "exact_match", "task"]
    weight: float = 1.0
    verdict: bool = False
    """It says which answers are right; where no reward is marked, the first one does."""
