"""All of it, in order."""

from __future__ import annotations

from typing import Any

from posttrain.recipe.resolve.follows import with_compute, with_rollout, with_teacher, with_values
from posttrain.recipe.resolve.rounds import with_rounds
from posttrain.recipe.resolve.stages import with_stages

NOT_BUILT = {
    "images": "images",
    "critic": "critics",
}
"""Keys that people look for, or that are promised, and that this version refuses with a sentence."""


def resolved(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values with all that follows from them; those that are resolved already stay as they are.

    Raises:
        ValueError: what does not go together, or is not part of this version.
    """
    for key in NOT_BUILT:
        if key in values:
            raise ValueError(f"{key}: {NOT_BUILT[key]} is not part of this version; the README lists what is")
    return with_values(with_rollout(with_teacher(with_compute(with_stages(with_rounds(values))))))
