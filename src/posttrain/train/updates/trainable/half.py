"""HFT: Half Fine-Tuning for Large Language Models (arXiv:2404.18466): half of each layer is trained and half stays, drawn by
the run's seed: two of the four attention matrices; of the three of the MLP two in one half of the layers, and one in the
other; half of the norms. Embeddings, the last norm and the output layer are trained. A bias goes with its matrix.
"""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Literal

from posttrain.train.updates.trainable._trainable import Shapes, TrainableConfig, layers_of, outside, within_layer


class Half(TrainableConfig):
    """Half of each layer's matrices and norms are trained, drawn by the run's seed."""

    rule: Literal["half"] = "half"
    draw: int = 0
    """Another number draws another half: of a later stage, which the paper draws anew."""

    def chosen(self, shapes: Shapes, seed: int, step: int) -> set[str]:
        """Embeddings, and half of each layer."""
        rng, layers = Random(f"half {seed} {self.draw}"), layers_of(shapes)
        more = {*rng.sample(range(len(layers)), len(layers) // 2)}  # where an odd number is halved upwards
        found = outside(shapes)
        for number, names in enumerate(layers):
            kinds: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
            for name in names:
                module, within = name.rpartition(".")[0], within_layer(name)
                norm = len(shapes[f"{module}.weight"]) < 2 if f"{module}.weight" in shapes else True
                kinds["norms" if norm else within.split(".")[0]][module].append(name)
            for modules in kinds.values():
                half = (len(modules) + (number in more)) // 2
                found |= {name for module in rng.sample(sorted(modules), half) for name in modules[module]}
        return found
