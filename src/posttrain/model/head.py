"""From hidden states to log-probs, entropy and full-vocabulary KL, in row chunks. The vocabulary axis ends here.

The logits of the batch never exist: only the rows that carry loss are scored, a chunk at a time. With p = softmax(z / T) and
y the target,

    d logp / dz = (e_y - p) / T      d H / dz = -p (log p + H) / T      d KL(q || p) / dz = (p - q) / T

`in_one_pass` makes scores and gradients of a chunk while its logits are there, for a loss whose derivative by a row's scores
is known from these alone: 6 N H V operations. `token_logprobs` is for any loss: 8 N H V, since the backward pass makes the
logits again; 4 N H V where the head is frozen, for then the slope of each log-prob, of size H, is kept in place of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ROWS = {"cpu": 256, "cuda": 1024}
"""Rows of logits held at a time, in float32. On CPU fewer cost a tenth and more, more gain 3 %; 160 MB with a vocabulary of
152 k. On GPUs enough for full matrix throughput; 620 MB with such a vocabulary."""

Columns = Float[Tensor, "n k"]
"""Of each scored token: log p(target); then entropy and KL(reference || p) where asked for."""
Weigh = Callable[[Columns, slice], Columns]
"""The derivative of the loss by the columns of these rows, from these columns alone."""


class Named(NamedTuple):
    """The columns by name, [n, 1] each; None where they were not asked for."""

    logp: Float[Tensor, "n 1"]
    entropy: Float[Tensor, "n 1"] | None
    kl: Float[Tensor, "n 1"] | None


def named(columns: Columns, *, entropy: bool) -> Named:
    """The columns of a table in which entropy was asked for, or was not; a last one that is left is the KL."""
    logp, *others = columns.split(1, 1)
    return Named(logp, others.pop(0) if entropy else None, others.pop(0) if others else None)


@dataclass(frozen=True, slots=True)
class Head:
    """An output layer: logits = hidden @ weight.T + bias."""

    weight: Float[Tensor, "V H"]
    bias: Float[Tensor, " V"] | None = None


@dataclass(frozen=True, slots=True)
class ReferenceStates:
    """The reference's hidden states at the same positions, and its head: for the full-vocabulary KL."""

    hidden: Float[Tensor, "n H2"]
    head: Head


def token_logprobs(
    hidden: Float[Tensor, "n H"],
    head: Head,
    targets: Int[Tensor, " n"],
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    reference: ReferenceStates | None = None,
) -> Columns:
    """The columns, with gradient to `hidden` and the head.

    Computed in the dtype of `hidden` (autocast's, where it is on) up to the logits, in float32 from there, float64 if
    the inputs are. The gradient is differentiable once; a second derivative is an error.
    """
    rows = _Rows(targets, 1 / temperature, entropy, reference, _compute_dtype(hidden))
    with torch.autocast(hidden.device.type, enabled=False):
        return _Score.apply(rows, torch.is_grad_enabled(), hidden, head.weight, head.bias)  # type: ignore[no-any-return]


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
    rows = _Rows(targets, 1 / temperature, entropy, reference, _compute_dtype(hidden))
    with torch.autocast(hidden.device.type, enabled=False):
        return _OnePass.apply(rows, weigh, hidden, head.weight, head.bias)  # type: ignore[no-any-return]


def full_logprobs(logits: Float[Tensor, "n V"], targets: Int[Tensor, " n"], temperature: float, entropy: bool) -> Columns:
    """The columns of logits that were made whole, by autograd, for a model that does more to them than its head."""
    wide = torch.promote_types(torch.float32, logits.dtype)
    log_p = torch.log_softmax(logits.to(wide) / temperature, -1)
    columns = [log_p.gather(1, targets[:, None])]
    if entropy:
        columns.append(-(log_p.exp() * log_p).sum(1, keepdim=True))
    return torch.cat(columns, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """What is asked of each row; `dtype` is that of the matrix products."""

    targets: Int[Tensor, " n"]
    scale: float
    entropy: bool
    reference: ReferenceStates | None
    dtype: torch.dtype

    @property
    def wide(self) -> torch.dtype:
        return torch.promote_types(torch.float32, self.dtype)

    @property
    def width(self) -> int:
        return 1 + self.entropy + (self.reference is not None)

    def scored(self, hidden: Tensor, head: Head) -> Iterator[_Chunk]:
        """The rows, a chunk at a time; a chunk is gone when the next one is made, for they share their memory."""
        vocabulary = len(head.weight)
        size = CHUNK_ROWS.get(hidden.device.type, CHUNK_ROWS["cuda"])
        models = [(hidden, head)] + ([] if self.reference is None else [(self.reference.hidden, self.reference.head)])
        models = [(states, _cast(layer, self.dtype)) for states, layer in models]
        room = torch.empty(len(models), min(size, len(hidden)), vocabulary, dtype=self.wide, device=hidden.device)
        for start in range(0, len(hidden), size):
            rows = slice(start, start + size)
            logs = [_log_softmax(states[rows], layer, self.scale, room[i]) for i, (states, layer) in enumerate(models)]
            yield _Chunk(rows, self.targets[rows, None], self.scale, self.entropy, logs[0], logs[1] if logs[1:] else None)


@dataclass(slots=True, eq=False)
class _Chunk:
    """Some rows, and their log-probs over the vocabulary: p of the model, q of the reference."""

    rows: slice
    targets: Int[Tensor, "c 1"]
    scale: float
    entropy: bool
    log_p: Float[Tensor, "c V"]
    log_q: Float[Tensor, "c V"] | None

    def columns(self) -> Columns:
        scores = [self.log_p.gather(1, self.targets)]
        if self.entropy:
            scores.append(-(self.log_p.exp() * self.log_p).sum(1, keepdim=True))
        if self.log_q is not None:
            scores.append((self.log_q.exp() * (self.log_q - self.log_p)).sum(1, keepdim=True))
        return torch.cat(scores, 1)

    def slope(self, columns: Columns, grad: Columns) -> tuple[Float[Tensor, "c V"], Float[Tensor, "c 1"] | float]:
        """d loss / d logits, as a matrix and what its rows are to be multiplied by. Nothing is left of the log-probs.

        Of log-probs alone it is -g (p - e_y) / T: g stays outside, so that no pass over the vocabulary is made for it.
        """
        if columns.shape[1] == 1:
            return self.log_p.exp_().scatter_(1, self.targets, columns.expm1()), -grad * self.scale
        p, of, value = self.log_p.exp(), named(grad, entropy=self.entropy), named(columns, entropy=self.entropy)
        slope = (p * -of.logp).scatter_add_(1, self.targets, of.logp)
        if of.entropy is not None and value.entropy is not None:
            slope -= of.entropy * p * (self.log_p + value.entropy)
        if of.kl is not None and self.log_q is not None:
            slope += of.kl * (p - self.log_q.exp_())
        return slope, self.scale


class _Gradients:
    """The gradients of a head's hidden states, weight and bias, of those that are wanted, over chunks of rows."""

    def __init__(self, hidden: Tensor, head: Head, rows: _Rows, wanted: Sequence[bool]) -> None:
        self._hidden, self._head, self._dtype = hidden, head, rows.dtype
        self._weight = head.weight.to(rows.dtype)
        self._d_hidden = torch.empty_like(hidden) if wanted[0] else None
        make = torch.empty_like if len(hidden) else torch.zeros_like  # the first chunk writes, the others add
        self._d_weight = make(head.weight, dtype=rows.wide) if wanted[1] else None
        self._d_bias = torch.zeros_like(head.bias, dtype=rows.wide) if wanted[2] and head.bias is not None else None

    def add(self, chunk: _Chunk, columns: Columns, grad: Columns) -> None:
        wide, factor = chunk.slope(columns, grad)
        slope = wide.to(self._dtype)
        if self._d_hidden is not None:
            self._d_hidden[chunk.rows] = (slope @ self._weight).to(self._d_hidden.dtype) * factor
        if self._d_weight is not None:
            _add_product(self._d_weight, slope.T, (self._hidden[chunk.rows] * factor).to(self._dtype), chunk.rows.start > 0)
        if self._d_bias is not None:
            self._d_bias += (wide * factor).sum(0)

    def made(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        sums = ((self._d_weight, self._head.weight), (self._d_bias, self._head.bias))
        d_weight, d_bias = (None if total is None or of is None else total.to(of.dtype) for total, of in sums)
        return self._d_hidden, d_weight, d_bias


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: _Rows, recording: bool, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        head, trained = Head(weight, bias), any(ctx.needs_input_grad[3:])
        kept = recording and ctx.needs_input_grad[2] and not trained and rows.width == 1
        slopes = _Gradients(hidden, head, rows, (kept, False, False))
        made: list[Tensor] = []
        for chunk in rows.scored(hidden, head):
            columns = chunk.columns()
            made.append(columns)
            if kept:
                slopes.add(chunk, columns, torch.ones_like(columns))
        ctx.rows = rows
        ctx.save_for_backward(hidden, weight, bias, slopes.made()[0])
        return torch.cat(made) if made else hidden.new_zeros(0, rows.width, dtype=rows.wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden, weight, bias, slopes = ctx.saved_tensors
        if slopes is not None:
            return None, None, (slopes * grad).to(hidden.dtype), None, None
        head = Head(weight, bias)
        gradients = _Gradients(hidden, head, ctx.rows, ctx.needs_input_grad[2:])
        for chunk in ctx.rows.scored(hidden, head):
            gradients.add(chunk, chunk.columns(), grad[chunk.rows])
        return None, None, *gradients.made()


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: _Rows, weigh: Weigh, hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        head, made = Head(weight, bias), list[Tensor]()
        gradients = _Gradients(hidden, head, rows, ctx.needs_input_grad[2:])
        for chunk in rows.scored(hidden, head):
            columns = chunk.columns()
            made.append(columns)
            gradients.add(chunk, columns, weigh(columns, chunk.rows))
        ctx.gradients = gradients.made()
        scores = torch.cat(made) if made else hidden.new_zeros(0, rows.width, dtype=rows.wide)
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


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def _cast(head: Head, dtype: torch.dtype) -> Head:
    return Head(head.weight.to(dtype), None if head.bias is None else head.bias.to(dtype))


def _log_softmax(hidden: Tensor, head: Head, scale: float, room: Tensor) -> Float[Tensor, "c V"]:
    logits, hidden = room[: len(hidden)], hidden.to(head.weight.dtype)
    if logits.dtype == head.weight.dtype:
        torch.mm(hidden, head.weight.T, out=logits)
    else:
        logits.copy_(hidden @ head.weight.T)
    if head.bias is not None:
        logits += head.bias
    if scale != 1:
        logits *= scale
    return torch.log_softmax(logits, -1, out=logits)


def _add_product(total: Float[Tensor, "V H"], left: Float[Tensor, "V c"], right: Float[Tensor, "c H"], add: bool) -> None:
    """total = left @ right, added to what it was or in its place, in the total's precision."""
    if total.dtype == left.dtype:
        total.addmm_(left, right, beta=int(add))
    elif total.device.type == "cuda":
        torch.addmm(total, left, right, out_dtype=total.dtype, beta=int(add), out=total)
    elif add:
        total += left @ right
    else:
        total.copy_(left @ right)
