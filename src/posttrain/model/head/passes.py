"""From hidden states to log-probs, entropy and full-vocabulary divergences, in row chunks. The vocabulary axis ends here.

The logits of the batch never exist: only the rows that carry loss are scored, a chunk at a time. `in_one_pass` makes scores
and gradients of a chunk while its logits are there, for a loss whose derivative by a row's scores is known from these alone:
6 N H V operations. `token_logprobs` is for any loss: 8 N H V, since the backward pass makes the logits again; 4 N H V where
the head is frozen, for then the slope of each log-prob, of size H, is kept in place of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from posttrain.model.head.alone import log_probs
from posttrain.model.head.compared import distributions
from posttrain.model.head.gradients import Gradients
from posttrain.model.head.layer import Columns, Head, ReferenceStates
from posttrain.model.head.rows import Chunk, Rows

Weigh = Callable[[Columns, slice], Columns]
"""The derivative of the loss by the columns of these rows, from these columns alone."""


def token_logprobs(
    hidden: Float[Tensor, "n H"],
    head: Head,
    targets: Int[Tensor, " n"],
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    collision: bool = False,
    reference: ReferenceStates | None = None,
) -> Columns:
    """The columns, with gradient to `hidden` and the head; none of them through a collision.

    Computed in the dtype of `hidden` (autocast's, where it is on) up to the logits, in float32 from there, float64 if
    the inputs are. The gradient is differentiable once; a second derivative is an error.
    """
    asked = Rows(targets, 1 / temperature, entropy, reference, _compute_dtype(hidden), collision)
    with torch.autocast(hidden.device.type, enabled=False):
        return _Score.apply(asked, torch.is_grad_enabled(), hidden, head.weight, head.bias)  # type: ignore[no-any-return]


def in_one_pass(
    hidden: Float[Tensor, "n H"],
    head: Head,
    targets: Int[Tensor, " n"],
    weigh: Weigh,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    reference: ReferenceStates | None = None,
) -> tuple[Float[Tensor, ""], Columns]:
    """A zero whose gradient is that of the loss; and the columns of `token_logprobs`, which have none.

    `weigh` is called with each chunk's columns; of what it gives, the gradients are made on the spot.
    """
    asked = Rows(targets, 1 / temperature, entropy, reference, _compute_dtype(hidden))
    with torch.autocast(hidden.device.type, enabled=False):
        return _OnePass.apply(asked, weigh, hidden, head.weight, head.bias)  # type: ignore[no-any-return]


def full_logprobs(
    logits: Float[Tensor, "n V"], targets: Int[Tensor, " n"], *, temperature: float, entropy: bool, collision: bool = False
) -> Columns:
    """The columns of logits that were made whole, by autograd, for a model that does more to them than its head."""
    wide = torch.promote_types(torch.float32, logits.dtype)
    log_p = torch.log_softmax(logits.to(wide) / temperature, -1)
    columns = [log_p.gather(1, targets[:, None])]
    if entropy:
        columns.append(-(log_p.exp() * log_p).sum(1, keepdim=True))
    if collision:
        columns.append((2 * log_p.detach()).logsumexp(1, keepdim=True))
    return torch.cat(columns, 1)


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, asked: Rows, recording: bool, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        head, trained = Head(weight, bias), any(ctx.needs_input_grad[3:])
        cast, kept = head.to(asked.dtype), recording and ctx.needs_input_grad[2] and not trained and asked.width == 1
        slopes = Gradients(hidden, head, cast, asked, (kept, False, False))
        made: list[Tensor] = []
        for chunk in _chunks(asked, hidden, cast, slopes=kept):
            made.append(chunk.columns)
            if kept:
                slopes.add(chunk, torch.ones_like(chunk.columns))
        ctx.asked = asked
        ctx.save_for_backward(
            hidden, weight, bias, slopes.made()[0], *((cast.weight, cast.bias) if trained else (None, None))
        )
        return torch.cat(made) if made else hidden.new_zeros(0, asked.width, dtype=asked.wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden, weight, bias, slopes, *cast = ctx.saved_tensors
        if slopes is not None:
            return None, None, (slopes * grad).to(hidden.dtype), None, None
        head, asked = Head(weight, bias), ctx.asked
        layer = head.to(asked.dtype) if cast[0] is None else Head(*cast)
        gradients = Gradients(hidden, head, layer, asked, ctx.needs_input_grad[2:])
        for chunk in _chunks(asked, hidden, layer, slopes=True):
            gradients.add(chunk, grad[chunk.rows])
        return None, None, *gradients.made()


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, asked: Rows, weigh: Weigh, hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        head, made = Head(weight, bias), list[Tensor]()
        cast, wanted = head.to(asked.dtype), ctx.needs_input_grad[2:]
        gradients = Gradients(hidden, head, cast, asked, wanted)
        for chunk in _chunks(asked, hidden, cast, slopes=True):
            made.append(chunk.columns)
            gradients.add(chunk, weigh(chunk.columns, chunk.rows))
        ctx.gradients = gradients.made()
        scores = torch.cat(made) if made else hidden.new_zeros(0, asked.width, dtype=asked.wide)
        ctx.mark_non_differentiable(scores)
        return scores.new_zeros(()), scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if ctx.gradients is None:
            raise RuntimeError("The one-pass head gives its gradients once: they were made with the loss, and are used up.")
        gradients, ctx.gradients = ctx.gradients, None
        if scale.device.type == "cpu" and float(scale) == 1:  # on a GPU to ask would mean to wait
            return None, None, *gradients
        return None, None, *(None if one is None else one.mul_(scale.to(one.dtype)) for one in gradients)


def _chunks(asked: Rows, hidden: Tensor, cast: Head, *, slopes: bool) -> Iterator[Chunk]:
    return log_probs(asked, hidden, cast, slopes=slopes) if asked.width == 1 else distributions(asked, hidden, cast)


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
