"""Attention of packed rows: each document for itself, and answers after the prompt that they share.

A packed row is a sequence of trunks, then of answers. A trunk is a document, or a prompt with answers; an answer's tokens
see all of its trunk, and what came before them in the answer. How that is computed is the layout's: block by block of one
shape (`blocks.py`), or by a kernel that takes stretches of any length (`varlen.py`). It goes through transformers' interface
for attention functions, so that no model is edited; a call without a layout is answered by the implementation that the model
had.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PREFIX = "packed_"
_BENT = ("sliding_window", "softcap", "s_aux")  # what layers ask for that is not softmax(scale · q kᵀ) v over all before


class Layout(Protocol):
    """What stands in a packed row, and how its tokens are attended to."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What must be on the device of the row."""
        ...

    def with_tensors(self, *tensors: Tensor) -> Layout:
        """The same, whose tensors are these."""
        ...

    def attend(
        self,
        query: Float[Tensor, "1 h S d"],
        key: Float[Tensor, "1 k S d"],
        value: Float[Tensor, "1 k S d"],
        *,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> Float[Tensor, "1 S h d"]:
        """softmax(scale · q kᵀ) v of every token over the tokens of its document up to it, of states of one dtype; k heads of
        keys serve h of queries.
        """
        ...


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
    if bent := [name for name in _BENT if options.get(name) is not None]:
        raise ValueError(f"its attention has a {bent[0]}")
    states = _of_one_dtype(query, key, value)
    return layout.attend(*states, scale=options.get("scaling"), dropout=options.get("dropout", 0.0)), None


def _of_one_dtype(*states: Tensor) -> tuple[Tensor, ...]:
    """As autocast has them for attention, for what stands before it: a causal bias, and kernels that are called by name."""
    device, dtype = states[-1].device.type, states[-1].dtype
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    return tuple(one.to(dtype) for one in states)
