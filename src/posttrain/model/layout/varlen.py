"""A packed row that is attended to by torch's flash kernel for stretches of any length (`flash.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.model.layout.flash import Attention, Places, Stretches
from posttrain.model.layout.traced import attend


@dataclass(frozen=True, slots=True, eq=False)
class Varlen(Places):
    """What stands in a packed row; a `Layout`."""

    @classmethod
    def of(cls, trunks: Sequence[int], answers: Sequence[tuple[int, int]]) -> Varlen:
        """Trunks of these lengths, those with answers last; then answers in the order of their trunks: the number of the
        trunk, and the length.

        Raises:
            ValueError: they stand in another order.
        """
        asked = [(trunk, sum(length for _, length in of)) for trunk, of in groupby(answers, lambda answer: answer[0])]
        alone, of = len(trunks) - len(asked), [trunk for trunk, _ in asked]
        if of != list(range(alone, len(trunks))):
            raise ValueError(f"answers to trunks {of} of {len(trunks)}, expected the last ones in order")
        own = Stretches.of(lengths := [*trunks, *(length for _, length in answers)], lengths)
        shared = Stretches.of([length for _, length in asked], trunks[alone:]) if asked else None
        return cls(own, shared, sum(trunks[:alone]), sum(trunks))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """See `Layout`."""
        return (self.own.queries, *((self.shared.queries, self.shared.keys) if self.shared else ()))

    def with_tensors(self, *tensors: Tensor) -> Varlen:
        """See `Layout`."""
        own, *others = tensors
        shared = replace(self.shared, queries=others[0], keys=others[1]) if self.shared else None
        return replace(self, own=replace(self.own, queries=own, keys=own), shared=shared)

    def attend(
        self,
        query: Float[Tensor, "1 h S d"],
        key: Float[Tensor, "1 k S d"],
        value: Float[Tensor, "1 k S d"],
        *,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> Float[Tensor, "1 S h d"]:
        """See `Layout`."""
        q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
        if torch.compiler.is_compiling() and not dropout:
            return attend(q, k, v, self, scale)[None]
        return Attention.apply(q, k, v, self, scale, dropout)[None]
