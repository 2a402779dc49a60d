"""Attention by torch's flash kernel for stretches of any length: one call of it, and a second where answers share prompts.

Prompts and answers are documents of the one call, in which each token sees its own up to itself. In the other all answers to
a prompt are one stretch of queries over the prompt's keys. The two are merged by their log-sums of exponentials,

    o = Σ_i exp(l_i − l) o_i,    l = log Σ_i exp(l_i)

and the gradient is that of both calls, each given o and l: what it then makes of them are the weights of the whole softmax.
No key is copied, no mask is made, and nothing waits for the device. In 16 bits, on CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
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
class Varlen:
    """What stands in a packed row; a `Layout`.

    own: trunks and answers, each over itself.
    shared: the answers to each prompt that has some, over this prompt; queries are counted from `first_answer` on, keys
        from `first_prompt` to there.
    """

    own: Stretches
    shared: Stretches | None
    first_prompt: int
    first_answer: int

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
        states = (states[0].transpose(0, 1) for states in (query, key, value))
        return _Attention.apply(*states, self, scale, dropout)[None]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "S h d"],
        key: Float[Tensor, "S k d"],
        value: Float[Tensor, "S k d"],
        layout: Varlen,
        scale: float | None,
        dropout: float,
    ) -> Float[Tensor, "S h d"]:
        out, logsum, *noise = _flash(query, key, value, layout.own, scale, dropout, causal=True)
        if layout.shared is not None:
            answers, prompts = _parts(layout)
            states = query[answers], key[prompts], value[prompts]
            over, over_logsum, *more = _flash(*states, layout.shared, scale, dropout, causal=False)
            noise += more
            _merge(out[answers], logsum[:, answers], over, over_logsum)
        ctx.save_for_backward(query, key, value, out, logsum, *noise)
        ctx.layout, ctx.scale, ctx.dropout = layout, scale, dropout
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "S h d"]) -> tuple[Tensor | None, ...]:
        query, key, value, out, logsum, *noise = ctx.saved_tensors
        layout, options = ctx.layout, (ctx.scale, ctx.dropout)
        made = _flash_backward(gradient, query, key, value, out, logsum, layout.own, *options, noise[:2], causal=True)
        if layout.shared is not None:
            answers, prompts = _parts(layout)
            of_answers = gradient[answers], query[answers], key[prompts], value[prompts], out[answers]
            logsum = logsum[:, answers].contiguous()
            more = _flash_backward(*of_answers, logsum, layout.shared, *options, noise[2:], causal=False)
            for total, part, own in zip(made, (answers, prompts, prompts), more, strict=True):
                total[part] += own
        return (*made, None, None, None)


def _parts(layout: Varlen) -> tuple[slice, slice]:
    """Where the answers stand, and the prompts that they share."""
    return slice(layout.first_answer, None), slice(layout.first_prompt, layout.first_answer)


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
) -> tuple[Tensor, ...]:
    states, starts = (gradient, query, key, value, out, logsum), (stretches.queries, stretches.keys)
    longest = stretches.most_queries, stretches.most_keys
    return torch.ops.aten._flash_attention_backward(*states, *starts, *longest, dropout, causal, *noise, scale=scale)
