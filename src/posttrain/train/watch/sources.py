"""What a step has of each of several sources that are mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posttrain.train.collect.collection import Collection

SHARE, NLL = "data/share", "nll"


@dataclass(frozen=True, slots=True)
class BySource:
    """Of the sources that a step has rows of: units, tokens that the model reads for them, prompts included, and, where all
    are demonstrations, those that carry loss, of rows that are read.
    """

    units: Counter[str]
    tokens: Counter[str]
    learnt: Counter[str]

    @classmethod
    def of(cls, collection: Collection, units: Sequence[int], read: Sequence[int], *, demonstrations: bool) -> BySource:
        """Of a step's units, of which some are `read`, over all ranks."""
        counted, tokens, learnt = Counter[str](), Counter[str](), Counter[str]()
        mask = collection.flat.fields["loss_mask"]
        for unit in units if any(collection.sources) else ():
            if source := collection.sources[unit]:
                counted[source] += 1
                tokens[source] += sum(len(collection.rows[row]) for row in collection.units[unit])
        for unit in read if counted and demonstrations else ():
            learnt[collection.sources[unit]] += int(mask[collection.flat.span(collection.units[unit][0])].sum())
        return cls(counted, tokens, learnt)

    def shares(self, names: Sequence[str]) -> dict[str, float]:
        """`data/share/<source>`, of the step's units, and with /tokens at its end of their tokens; 0 where there are none."""
        rows, tokens = self.units.total() or 1, self.tokens.total() or 1
        metrics = {f"{SHARE}/{name}": self.units[name] / rows for name in names}
        return metrics | {f"{SHARE}/{name}/tokens": self.tokens[name] / tokens for name in names}

    def nll(
        self, collection: Collection, micro: Sequence[int], logp: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> dict[str, Float[Tensor, ""]]:
        """A micro-batch's share of each source's mean over its tokens in the step: alike in name on all ranks."""
        if not self.learnt:
            return {}
        rows = -torch.where(mask, logp.detach(), 0.0).sum(-1)
        own = [collection.sources[unit] for unit in micro]
        return {
            f"{NLL}/{name}": rows[[one == name for one in own] or [False]].sum() / max(count, 1)
            for name, count in sorted(self.learnt.items())
            if name
        }
