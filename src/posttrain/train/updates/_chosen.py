"""What is trained of a model, and what a plan says of it and of the rules. No transformers' trainer here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from posttrain.errors import SetupError
from posttrain.train.updates._update import UpdateConfig
from posttrain.train.updates.trainable import TrainableConfig
from posttrain.train.updates.trainable._trainable import Shapes

if TYPE_CHECKING:
    from torch import nn


def shapes_of(model: nn.Module) -> Shapes:
    """Of all parameters, by their names."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def freeze(model: nn.Module, trainable: TrainableConfig, seed: int) -> None:
    """Parameters that are never trained take no gradient; nothing where they are trained in turns.

    Raises:
        SetupError: the rule is not of such a model.
    """
    chosen = chosen_of(model, trainable, seed, 1)
    if not trainable.in_turns:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen)


def chosen_of(model: nn.Module, trainable: TrainableConfig, seed: int, step: int) -> set[str]:
    """What is trained in a step, by names.

    Raises:
        SetupError: the rule is not of such a model.
    """
    if hasattr(model, "peft_config"):
        raise SetupError("training.trainable: it chooses of a model's own parameters, and of this one an adapter is trained.")
    try:
        return trainable.chosen(shapes_of(model), seed, step)
    except ValueError as error:
        raise SetupError(f"training.trainable: {trainable.rule}: {error}") from error


def told(model: nn.Module, trainable: TrainableConfig | None, updates: Sequence[UpdateConfig], seed: int) -> dict[str, str]:
    """What is trained of a model, and by which rules beside the optimizer's, for a plan."""
    found = dict[str, str]()
    if trainable is not None:
        found["what is trained"] = _written(trainable.model_dump())
        if trainable.in_turns:
            shapes = shapes_of(model)
            number = sum(math.prod(shapes[name]) for name in chosen_of(model, trainable, seed, 1))
            found["what is trained"] += f": {number:,} parameters in the first step"
    if updates:
        found["update rules"] = ", ".join(_written(rule.model_dump()) for rule in updates)
    return found


def _written(options: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in options.items()) + "}"
