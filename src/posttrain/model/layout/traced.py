"""Attention of stretches (`flash.py`) as one operation of a graph that torch.compile traces: `torch.ops.posttrain.attend`.

What it is made of stays closed to the compiler, so that a layer around it is one graph. Nothing is dropped out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.model.layout.flash import Places, Stretches, backward, forward

_STATES = "Tensor query, Tensor key, Tensor value"
_LAYOUT = "Tensor starts, Tensor? queries, Tensor? keys, SymInt[] sizes, float? scale"
Sizes = Sequence[int]
"""The longest of the queries and keys of a token's own stretch, and of the shared ones; where prompts and answers begin."""


def _places(starts: Tensor, queries: Tensor | None, keys: Tensor | None, sizes: Sizes) -> Places:
    shared = None if queries is None or keys is None else Stretches(queries, keys, sizes[2], sizes[3])
    return Places(Stretches(starts, starts, sizes[0], sizes[1]), shared, sizes[4], sizes[5])


@torch.library.custom_op("posttrain::attend", mutates_args=(), schema=f"({_STATES}, {_LAYOUT}) -> (Tensor, Tensor)")
def _attend(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, queries: Any, keys: Any, sizes: Sizes, scale: Any
) -> tuple[Tensor, Tensor]:
    out, logsum, *_ = forward(query, key, value, _places(starts, queries, keys, sizes), scale, 0.0)
    return out.contiguous(), logsum.contiguous()


@_attend.register_fake
def _shapes(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    tokens, heads, size = query.shape
    return query.new_empty(tokens, heads, size), query.new_empty(heads, tokens, dtype=torch.float32)


@torch.library.custom_op(
    "posttrain::attend_backward",
    mutates_args=(),
    schema=f"(Tensor gradient, Tensor out, Tensor logsum, {_STATES}, {_LAYOUT}) -> (Tensor, Tensor, Tensor)",
)
def _attend_backward(
    gradient: Tensor, out: Tensor, logsum: Tensor, query: Tensor, key: Tensor, value: Tensor,
    starts: Tensor, queries: Any, keys: Any, sizes: Sizes, scale: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    places = _places(starts, queries, keys, sizes)
    noise = (query.new_zeros(2, dtype=torch.uint64), query.new_empty(0)) * 2  # of what was not drawn
    made = backward(gradient, query, key, value, out, logsum, *noise, options=(places, scale, 0.0))
    return tuple(one.contiguous() for one in made)


@_attend_backward.register_fake
def _shapes_backward(gradient: Tensor, out: Tensor, logsum: Tensor, *states: Any) -> tuple[Tensor, ...]:
    return tuple(one.new_empty(one.shape) for one in states[:3])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, sizes, scale = inputs
    ctx.save_for_backward(*output, *tensors)
    ctx.others = sizes, scale


def _slopes(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    made = torch.ops.posttrain.attend_backward(gradient, *ctx.saved_tensors, *ctx.others)
    return (*made, *(None for _ in range(5)))


_attend.register_autograd(_slopes, setup_context=_save)


def attend(
    query: Float[Tensor, "S h d"],
    key: Float[Tensor, "S k d"],
    value: Float[Tensor, "S k d"],
    places: Places,
    scale: float | None,
) -> Float[Tensor, "S h d"]:
    """The output of `forward`, where nothing is dropped out."""
    own, shared = places.own, places.shared
    longest = (0, 0) if shared is None else (shared.most_queries, shared.most_keys)
    starts = own.queries, None if shared is None else shared.queries, None if shared is None else shared.keys
    sizes = [own.most_queries, own.most_keys, *longest, places.first_prompt, places.first_answer]
    return torch.ops.posttrain.attend(query, key, value, *starts, sizes, scale)[0]
