"""What a teacher that a server has asks of the rest of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posttrain.errors import RecipeError
from posttrain.settings.rollout import RolloutConfig

if TYPE_CHECKING:
    from posttrain.estimator import Needs


def check_served(key: str, who: str, needs: Needs, rollout: RolloutConfig | None) -> None:
    """Refuses what a server cannot give to an algorithm, `who`.

    Raises:
        RecipeError: the key, and what to do.
    """
    if needs.teacher == "full":
        raise RecipeError(f"{key}: {who} compares whole distributions, and a server gives log-probs of tokens: give name")
    if rollout is not None and rollout.temperature != 1:
        raise RecipeError(f"{key}: a server gives log-probs at temperature 1: set rollout.temperature: 1, or give name")
