"""LISA: Layerwise Importance Sampling for Memory-Efficient Large Language Model Fine-Tuning (arXiv:2403.17919): every so many
steps some layers are drawn, and trained with the embeddings, the last norm and the output layer; the others stay. Ours: the
optimizer forgets a layer that is not trained any more, which is what the memory is saved by.
"""

from __future__ import annotations

from random import Random
from typing import ClassVar, Literal

from posttrain.settings.base import Count
from posttrain.train.updates.trainable._trainable import Shapes, TrainableConfig, layers_of, outside


class Lisa(TrainableConfig):
    """Some layers, drawn anew every so many steps, are trained with embeddings and output layer."""

    in_turns: ClassVar[bool] = True
    rule: Literal["lisa"] = "lisa"
    layers: Count = 2
    """That are trained at a time."""
    every: Count = 20
    """Steps until others are drawn."""

    def chosen(self, shapes: Shapes, seed: int, step: int) -> set[str]:
        """Embeddings, and the layers of this turn."""
        layers = layers_of(shapes)
        if self.layers > len(layers):
            raise ValueError(f"layers: {self.layers}, and the model has {len(layers)}")
        drawn = Random(f"lisa {seed} {(step - 1) // self.every}").sample(range(len(layers)), self.layers)
        return outside(shapes) | {name for number in drawn for name in layers[number]}
