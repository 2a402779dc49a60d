"""What a run carries from one collection to the next, for its plan."""

from __future__ import annotations

from typing import Any

from posttrain.estimator.needs import Needs
from posttrain.recipe import Recipe


def over_steps(recipe: Recipe, needs: Needs) -> dict[str, Any]:
    """How the reference follows the policy, and when demonstrations that wait are trained on, where there are such."""
    moves, buffer, rows = recipe.model.reference, needs.buffer, dict[str, Any]()
    if moves.refresh:
        rows["the reference follows"] = f"{moves.mix:g} of the policy every {moves.refresh} steps"
    if buffer is not None:
        how = "in a step more, one of the steps below" if buffer.step == "own" else "within the step on rollouts"
        rows["demonstrations of unsolved questions"] = f"{buffer.size} at a time, the {buffer.order} first, {how}"
    return rows
