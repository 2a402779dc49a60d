"""One level of values over another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

OF_THE_TASK = ("dtype", "compute", "attn_implementation", "adapter", "quantization", "reference", "teachers")
"""What a later stage keeps of the top level's `model`; the model itself is the one that the stage before it trained."""


def over(key: str, below: Any, above: Any) -> Any:
    """A key's value over another's, one level deep; an algorithm with a name is whole."""
    if not isinstance(below, dict) or not isinstance(above, dict) or (key == "algorithm" and "name" in above):
        return above
    return {**below, **above}


def is_in_vain(values: dict[str, Any], keys: Sequence[str]) -> bool:
    """Whether every stage has a value of its own in place of the one at the top level that `keys` lead to."""
    stages, (key, *below) = values.get("stages"), keys
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) and key in stage for stage in stages):
        return False
    return all(_takes_the_place(key, below, stage[key]) for stage in stages)


def _takes_the_place(key: str, below: Sequence[str], own: Any) -> bool:
    if not isinstance(own, dict) or (key == "algorithm" and "name" in own):
        return True
    return bool(below) and below[0] in own
