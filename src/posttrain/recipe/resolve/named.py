"""What a recipe's algorithm is, as far as its values tell."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from posttrain.algorithms import KIND
from posttrain.algorithms.options import AlgorithmConfig
from posttrain.settings.doors.code import object_name
from posttrain.settings.doors.door import Door


def label_of(algorithm: Any) -> str | None:
    """What the algorithm is called, as far as it can be told."""
    config = config_of(algorithm)
    if config is not None and issubclass(config, Door) and not config.trusted and isinstance(algorithm.get("path"), str):
        return object_name(algorithm["path"])
    return algorithm.get("name") if isinstance(algorithm, dict) else None


def config_of(algorithm: Any) -> type[AlgorithmConfig] | None:
    """Of which config it is; None where its name is none, or unknown."""
    name = algorithm.get("name") if isinstance(algorithm, dict) else None
    try:
        return KIND.find(name) if isinstance(name, str) else None
    except ValueError:  # the checks will say so
        return None


def name_of_stage(algorithm: Any, number: int, taken: Collection[str]) -> str:
    """What a stage without a name is called: as its algorithm is, with its number where another stage is called that."""
    plain = label_of(algorithm) or "stage"
    return f"{plain}{number}" if plain in taken else plain
