"""Attention of packed rows: each document for itself, and answers after the prompt that they share. No mask is as wide as
the row.

A packed row is a sequence of trunks, then of answers. A trunk is a document, or a prompt with answers; an answer's tokens
see all of its trunk, and what came before them in the answer. Those of one shape stand side by side and are computed
together. It goes through transformers' interface for attention functions, so that no model is edited; a call without a
layout is answered by the implementation that the model had.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PREFIX = "packed_"


@dataclass(frozen=True, slots=True)
class Trunks:
    """So many documents or prompts, of so many tokens each."""

    count: int
    length: int


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of one length to prompts of one length: those of block `trunks`, each to the one that `to` says."""

    trunks: int
    to: tuple[int, ...]
    length: int

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.to)


@dataclass(frozen=True, slots=True)
class Layout:
    """What stands in a packed row, in this order."""

    trunks: tuple[Trunks, ...]
    answers: tuple[Answers, ...] = ()

    @property
    def blocks(self) -> tuple[Trunks | Answers, ...]:
        """Everything."""
        return (*self.trunks, *self.answers)


def take_layouts(model: Any) -> None:
    """Makes the model's attention layers take a `layout=` beside what they took."""
    former = str(model.config._attn_implementation)
    if former.startswith(PREFIX):
        return
    name = PREFIX + former
    ALL_ATTENTION_FUNCTIONS.register(name, partial(_attend, ALL_ATTENTION_FUNCTIONS[former]))
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, ALL_MASK_ATTENTION_FUNCTIONS[former])
    model.set_attn_implementation(name)


def _attend(
    former: Callable[..., Any],
    module: Any,
    query: Float[Tensor, "B h S d"],
    key: Float[Tensor, "B k S d"],
    value: Float[Tensor, "B k S d"],
    attention_mask: Any,
    *arguments: Any,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[Float[Tensor, "B S h d"], Any]:
    if layout is None:
        return former(module, query, key, value, attention_mask, *arguments, **options)
    return packed_attention(
        query, key, value, layout, scale=options.get("scaling"), dropout=options.get("dropout", 0.0)
    ), None


def packed_attention(
    query: Float[Tensor, "1 h S d"],
    key: Float[Tensor, "1 k S d"],
    value: Float[Tensor, "1 k S d"],
    layout: Layout,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "1 S h d"]:
    """softmax(scale · q kᵀ) v of every token over the tokens of its document up to it; k heads of keys serve h of queries."""
    queries, keys, values = (_blocks(states, layout) for states in _of_one_dtype(query, key, value))
    attend = partial(scaled_dot_product_attention, dropout_p=dropout, scale=scale, enable_gqa=query.shape[1] != key.shape[1])
    trunks = len(layout.trunks)
    outputs = [attend(q, k, v, is_causal=True) for q, k, v in zip(queries[:trunks], keys, values, strict=False)]
    for block, q, k, v in zip(layout.answers, queries[trunks:], keys[trunks:], values[trunks:], strict=True):
        seen = [torch.cat((_chosen(states[block.trunks], block.to), own), 2) for states, own in ((keys, k), (values, v))]
        outputs.append(attend(q, *seen, attn_mask=_lower_right(block.length, seen[0].shape[2], q.device)))
    return torch.cat([output.transpose(1, 2).flatten(0, 1) for output in outputs])[None]


def _of_one_dtype(*states: Tensor) -> tuple[Tensor, ...]:
    """As autocast has them for attention, for what stands before it: a causal bias, and kernels that are called by name."""
    device, dtype = states[-1].device.type, states[-1].dtype
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    return tuple(one.to(dtype) for one in states)


def _blocks(states: Float[Tensor, "1 h S d"], layout: Layout) -> list[Float[Tensor, "n h L d"]]:
    parts = states[0].split([block.count * block.length for block in layout.blocks], 1)
    return [part.unflatten(1, (block.count, -1)).transpose(0, 1) for part, block in zip(parts, layout.blocks, strict=True)]


def _chosen(trunks: Float[Tensor, "n k P d"], to: tuple[int, ...]) -> Float[Tensor, "m k P d"]:
    if len(trunks) == 1:
        return trunks.expand(len(to), -1, -1, -1)
    return trunks.index_select(0, torch.tensor(to, device=trunks.device))


def _lower_right(queries: int, keys: int, device: torch.device) -> Any:
    """Each query sees the keys up to its own, which are the last ones."""
    if device.type == "cuda":
        return causal_lower_right(queries, keys)  # no mask is made for the kernels that know of it
    own = torch.arange(keys - queries, keys, device=device)
    return torch.arange(keys, device=device) <= own[:, None]
