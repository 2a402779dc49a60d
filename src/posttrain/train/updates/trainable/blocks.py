"""BAdam: A Memory Efficient Full Parameter Optimization Method for Large Language Models (arXiv:2404.02827): block after
block is trained for so many steps, with Adam's state new for each. A block is a layer; what is in no layer stays as it is, or
is a block of its own.
"""

from __future__ import annotations

from random import Random
from typing import ClassVar, Literal

from posttrain.settings.base import Count
from posttrain.train.updates.trainable._trainable import Shapes, TrainableConfig, layers_of, outside


class Blocks(TrainableConfig):
    """One layer after another is trained, each for so many steps."""

    in_turns: ClassVar[bool] = True
    rule: Literal["blocks"] = "blocks"
    every: Count = 100
    """Steps of a block."""
    order: Literal["random", "ascending", "descending"] = "random"
    """In which they follow one another; random is another order in each pass over all of them."""
    outside: bool = False
    """Embeddings, the last norm and the output layer are a block as well."""

    def chosen(self, shapes: Shapes, seed: int, step: int) -> set[str]:
        """The block of this turn."""
        blocks = [{*names} for names in layers_of(shapes)] + [outside(shapes)] * self.outside
        turn, place = divmod((step - 1) // self.every, len(blocks))
        order = list(range(len(blocks)))
        if self.order == "random":
            Random(f"blocks {seed} {turn}").shuffle(order)
        return blocks[order[place] if self.order != "descending" else order[-1 - place]]
