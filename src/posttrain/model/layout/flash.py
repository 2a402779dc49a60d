"""torch's flash kernel for stretches of any length: one call of it, and a second where answers share prompts.

Prompts and answers are documents of the one call, in which each token sees its own up to itself. In the other all answers to
a prompt are one stretch of queries over the prompt's keys. The two are merged by their log-sums of exponentials,

    o = Σ_i exp(l_i − l) o_i,    l = log Σ_i exp(l_i)

and the gradient is that of both calls, each given o and l: what it then makes of them are the weights of the whole softmax.
No key is copied, no mask is made, and nothing waits for the device. In 16 bits, on CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 128
"""Tokens. The kernel is told the longest stretch rounded up to it: fewer numbers that a compiled layer is made anew for, and
no stretches of one token, which it would take for decoding."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretches:
    """Stretches of queries, each over one of keys: where they begin, and the end of the last; and no fewer tokens than the
    longest has.
    """

    queries: Int[Tensor, " n"]
    keys: Int[Tensor, " n"]
    most_queries: int
    most_keys: int

    @classmethod
    def of(cls, queries: Sequence[int], keys: Sequence[int]) -> Stretches:
        """Of these lengths."""
        first, second = (torch.tensor([0, *accumulate(of)], dtype=torch.int32) for of in (queries, keys))
        most_queries, most_keys = (-(-max(of) // TILE) * TILE for of in (queries, keys))
        return cls(first, second, most_queries, most_keys)


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """What stands in a packed row.

    own: trunks and answers, each over itself.
    shared: the answers to each prompt that has some, over this prompt; queries are counted from `first_answer` on, keys
        from `first_prompt` to there.
    """

    own: Stretches
    shared: Stretches | None
    first_prompt: int
    first_answer: int


class Attention(torch.autograd.Function):
    """Both calls, for autograd."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Float[Tensor, "S h d"]:
        made = forward(*given)
        ctx.save_for_backward(*given[:3], *made)
        ctx.options = given[3:]
        return made[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "S h d"]) -> tuple[Tensor | None, ...]:
        return (*backward(gradient, *ctx.saved_tensors, options=ctx.options), None, None, None)


def forward(
    query: Float[Tensor, "S h d"],
    key: Float[Tensor, "S k d"],
    value: Float[Tensor, "S k d"],
    places: Places,
    scale: float | None,
    dropout: float,
) -> tuple[Tensor, ...]:
    """The output [S, h, d], the log-sums [h, S], and two tensors of each call's noise."""
    out, logsum, *noise = _flash(query, key, value, places.own, scale, dropout, causal=True)
    if places.shared is not None:
        answers, prompts = _parts(places)
        states = query[answers], key[prompts], value[prompts]
        over, over_logsum, *more = _flash(*states, places.shared, scale, dropout, causal=False)
        noise += more
        _merge(out[answers], logsum[:, answers], over, over_logsum)
    return out, logsum, *noise


def backward(
    gradient: Float[Tensor, "S h d"],
    query: Float[Tensor, "S h d"],
    key: Float[Tensor, "S k d"],
    value: Float[Tensor, "S k d"],
    out: Float[Tensor, "S h d"],
    logsum: Float[Tensor, "h S"],
    *noise: Tensor,
    options: tuple[Places, float | None, float],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the queries, keys and values, of what `forward` made with these options."""
    places, scale, dropout = options
    states = gradient, query, key, value, out, logsum
    made = _flash_backward(*states, places.own, scale, dropout, noise[:2], causal=True)
    if places.shared is not None:
        answers, prompts = _parts(places)
        of_answers = gradient[answers], query[answers], key[prompts], value[prompts], out[answers]
        logsum = logsum[:, answers].contiguous()
        more = _flash_backward(*of_answers, logsum, places.shared, scale, dropout, noise[2:], causal=False)
        for total, part, own in zip(made, (answers, prompts, prompts), more, strict=True):
            total[part] += own
    return made


def _parts(places: Places) -> tuple[slice, slice]:
    """Where the answers stand, and the prompts that they share."""
    return slice(places.first_answer, None), slice(places.first_prompt, places.first_answer)


def _merge(out: Tensor, logsum: Tensor, over: Tensor, over_logsum: Tensor) -> None:
    """Puts two attentions of the same queries, [S, h, d] with log-sums [h, S], together in the place of the first."""
    share = (over_logsum - logsum).sigmoid().T[..., None]
    out.copy_(out.to(share.dtype).lerp(over.to(share.dtype), share))
    logsum.copy_(torch.logaddexp(logsum, over_logsum))


def _flash(
    query: Tensor, key: Tensor, value: Tensor, stretches: Stretches, scale: float | None, dropout: float, *, causal: bool
) -> tuple[Tensor, ...]:
    """The output, the log-sums [h, S], and two tensors of its noise."""
    longest = stretches.most_queries, stretches.most_keys
    return torch.ops.aten._flash_attention_forward(
        query, key, value, stretches.queries, stretches.keys, *longest, dropout, causal, False, scale=scale
    )[:4]


def _flash_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsum: Tensor,
    stretches: Stretches,
    scale: float | None,
    dropout: float,
    noise: Sequence[Tensor],
    *,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    states, starts = (gradient, query, key, value, out, logsum), (stretches.queries, stretches.keys)
    longest = stretches.most_queries, stretches.most_keys
    return torch.ops.aten._flash_attention_backward(*states, *starts, *longest, dropout, causal, *noise, scale=scale)
