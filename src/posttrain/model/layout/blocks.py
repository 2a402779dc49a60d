"""Attention block by block: trunks of one length, and answers of one length to trunks of one length, are computed together.
No mask is as wide as the row. Runs on every device and in every dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class Trunks:
    """So many documents or prompts, of so many tokens each."""

    count: int
    length: int


@dataclass(frozen=True, slots=True)
class Answers:
    """So many answers of one length, to prompts of block `trunks`."""

    trunks: int
    count: int
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """What stands in a packed row, in this order; a `Layout`. `to` says of each answer which prompt of its block it is to."""

    trunks: tuple[Trunks, ...]
    answers: tuple[Answers, ...]
    to: Int[Tensor, " m"]

    @classmethod
    def of(cls, trunks: Sequence[int], answers: Sequence[tuple[int, int]]) -> Blocks:
        """Trunks of these lengths, then answers: the number of the trunk, and the length. Those that are alike and stand side
        by side are a block.
        """
        standing, place = list[Trunks](), list[tuple[int, int]]()  # of each trunk: its block, and its number there
        for length, alike in groupby(trunks):
            count = len(list(alike))
            place += [(len(standing), number) for number in range(count)]
            standing.append(Trunks(count, length))
        following = [
            Answers(block, len(list(alike)), length)
            for (block, length), alike in groupby((place[trunk][0], length) for trunk, length in answers)
        ]
        to = torch.tensor([place[trunk][1] for trunk, _ in answers], dtype=torch.int64)
        return cls(tuple(standing), tuple(following), to)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """See `Layout`."""
        return (self.to,)

    def with_tensors(self, *tensors: Tensor) -> Blocks:
        """See `Layout`."""
        return replace(self, to=tensors[0])

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
        queries, keys, values = (self._split(states) for states in (query, key, value))
        grouped = query.shape[1] != key.shape[1]
        attend = partial(scaled_dot_product_attention, dropout_p=dropout, scale=scale, enable_gqa=grouped)
        trunks, to = len(self.trunks), self.to.split([block.count for block in self.answers])
        outputs = [attend(q, k, v, is_causal=True) for q, k, v in zip(queries[:trunks], keys, values, strict=False)]
        own = zip(queries[trunks:], keys[trunks:], values[trunks:], strict=True)
        for block, numbers, (q, k, v) in zip(self.answers, to, own, strict=True):
            seen = [torch.cat((_chosen(of[block.trunks], numbers), mine), 2) for of, mine in ((keys, k), (values, v))]
            outputs.append(attend(q, *seen, attn_mask=_lower_right(block.length, seen[0].shape[2], q.device)))
        return torch.cat([output.transpose(1, 2).flatten(0, 1) for output in outputs])[None]

    def _split(self, states: Float[Tensor, "1 h S d"]) -> list[Float[Tensor, "n h L d"]]:
        blocks = (*self.trunks, *self.answers)
        parts = states[0].split([block.count * block.length for block in blocks], 1)
        return [part.unflatten(1, (block.count, -1)).transpose(0, 1) for part, block in zip(parts, blocks, strict=True)]


def _chosen(trunks: Float[Tensor, "n k P d"], to: Int[Tensor, " m"]) -> Float[Tensor, "m k P d"]:
    return trunks.expand(len(to), -1, -1, -1) if len(trunks) == 1 else trunks.index_select(0, to)


def _lower_right(queries: int, keys: int, device: torch.device) -> Any:
    """Each query sees the keys up to its own, which are the last ones."""
    if device.type == "cuda":
        return causal_lower_right(queries, keys)  # no mask is made for the kernels that know of it
    own = torch.arange(keys - queries, keys, device=device)
    return torch.arange(keys, device=device) <= own[:, None]
