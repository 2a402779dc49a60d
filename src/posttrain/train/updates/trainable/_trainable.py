"""What a rule of what is trained is: names of parameters, of all, for each step; and how names fall into layers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar

from posttrain.settings.base import Config

Shapes = Mapping[str, tuple[int, ...]]
"""All parameters of a model, by their names, and their shapes."""
_LAYER = re.compile(r"^(?P<before>.*?(?:^|\.)(?:layers|h|blocks|block)\.)(?P<number>\d+)\.(?P<within>.+)$")


class TrainableConfig(Config, ABC):
    """The options of one rule."""

    in_turns: ClassVar[bool] = False
    """What is trained changes while it runs; the optimizer forgets what is not trained any more."""

    rule: str
    """Which rule; the other keys here are its options."""

    @abstractmethod
    def chosen(self, shapes: Shapes, seed: int, step: int) -> set[str]:
        """The parameters that are trained in a step, whose number is from 1: a function of the run's seed and the step alone.

        Raises:
            ValueError: the model has none such.
        """


def layers_of(names: Iterable[str]) -> list[list[str]]:
    """The parameters of each layer, by its number.

    Raises:
        ValueError: no name has a layer's number.
    """
    found: dict[int, list[str]] = {}
    for name in names:
        if (match := _LAYER.match(name)) is not None:
            found.setdefault(int(match["number"]), []).append(name)
    if not found:
        raise ValueError("the model's parameters are in no numbered layers")
    return [found[number] for number in sorted(found)]


def within_layer(name: str) -> str:
    """What a parameter of a layer is called there."""
    match = _LAYER.match(name)
    return name if match is None else match["within"]


def outside(names: Iterable[str]) -> set[str]:
    """The parameters of no layer: embeddings, the last norm, the output layer."""
    return {name for name in names if _LAYER.match(name) is None}
