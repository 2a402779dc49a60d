"""Gradual unfreezing, Universal Language Model Fine-tuning for Text Classification (ULMFiT, arXiv:1801.06146): the last layer
is trained first, with the output layer and the last norm, and after so many steps each time one more below it; with the first
layer come the embeddings.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from posttrain.settings.base import Count
from posttrain.train.updates.trainable._trainable import Shapes, TrainableConfig, layers_of, outside


class Unfreeze(TrainableConfig):
    """From the last layer to the first, one more is trained every so many steps."""

    in_turns: ClassVar[bool] = True
    rule: Literal["unfreeze"] = "unfreeze"
    every: Count = 100
    """Steps until the next layer is trained as well."""

    def chosen(self, shapes: Shapes, seed: int, step: int) -> set[str]:
        """The last layers, and what is above them."""
        layers = layers_of(shapes)
        number = min((step - 1) // self.every + 1, len(layers))
        found = {name for name in outside(shapes) if number == len(layers) or "embed" not in name}
        return found | {name for names in layers[-number:] for name in names}
