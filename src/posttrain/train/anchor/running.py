"""What completions of either label have gained over the start model, as a mean over the steps so far."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.train.anchor.anchor import Gains
from posttrain.train.collect.collection import Collection


class RunningAnchor:
    """Half way between the running means of log pi - log ref of the completions that are wanted, and of those that are not.

    m <- decay · m + (1 - decay) · the mean over the step's rows with that label, and as it was where there is none. Both
    begin at 0, which is what the start model gains over itself.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._means = {"wanted": 0.0, "unwanted": 0.0}

    def of(self, collection: Collection, gains: Gains, *, follow: bool) -> Float[Tensor, " B"]:
        """See `Anchor`: the step's own rows are in it."""
        if follow:
            self._follow(collection, gains(collection))
        return torch.full((len(collection.rows),), sum(self._means.values()) / 2, dtype=torch.float64)

    def _follow(self, collection: Collection, gains: Float[Tensor, " n"]) -> None:
        flat, gained = collection.flat, {side: list[Tensor]() for side in self._means}
        labels, mask = flat.of_tokens("weight"), flat.fields["loss_mask"]
        for tokens in map(flat.span, range(len(collection.rows))):
            if (counted := mask[tokens]).any():
                side = "wanted" if labels[tokens][0] > 0 else "unwanted"
                gained[side].append(gains[tokens][counted].double().sum())
        for side, rows in gained.items():
            if rows:
                mean = float(torch.stack(rows).mean())
                self._means[side] = self._decay * self._means[side] + (1 - self._decay) * mean

    def state(self) -> dict[str, float]:
        """See `Anchor`: both means."""
        return dict(self._means)

    def restore(self, state: Mapping[str, float]) -> None:
        """See `Anchor`."""
        self._means.update(state)
