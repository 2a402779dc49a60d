"""Scores of whole distributions beside log-probs: entropy, log sum p^2, and the divergence from another model.

With p = softmax(z / T) and y the target,

    d logp / dz = (e_y - p) / T      d H / dz = -p (log p + H) / T

A divergence may be of logits that are divided by a temperature of its own once more: of log p and log q, divided by it and
normalised again. `divergences.py` has their slopes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from posttrain.estimator.divergence import Divergence
from posttrain.model.head import divergences
from posttrain.model.head.layer import Columns, Head
from posttrain.model.head.rows import Chunk, Rows, rows_at_a_time
from posttrain.model.layers.products import multiply
from posttrain.model.layers.workspace import WORKSPACE


def distributions(asked: Rows, hidden: Float[Tensor, "n H"], head: Head) -> Iterator[Chunk]:
    """The rows, a chunk at a time. `head` is in the dtype of products; log-probs of the vocabulary are in that of scores."""
    models, reference, tempered = [(hidden, head)], asked.reference, False
    if reference is not None:
        models.append((reference.hidden, reference.head.to(asked.dtype)))
        tempered = reference.divergence.temperature != 1
    size = min(rows_at_a_time(hidden.device.type), len(hidden)) or 1
    shape, rooms = (size, len(head.weight)), len(models) + tempered
    held = [WORKSPACE.empty(*shape, dtype=asked.wide, device=hidden.device) for _ in range(rooms)]
    for start in range(0, len(hidden), size):
        rows = slice(start, min(start + size, len(hidden)))
        logs = [_log_softmax(asked, states[rows], layer, room) for (states, layer), room in zip(models, held, strict=False)]
        other = None if reference is None else _compared(reference.divergence, *logs, *held[2:])
        pair = _Pair(asked, asked.targets[rows, None], logs[0], other)
        columns = pair.columns()
        yield Chunk(rows, columns, lambda grad, pair=pair, columns=columns: pair.slope(columns, grad))


def _log_softmax(asked: Rows, states: Float[Tensor, "c H"], head: Head, room: Float[Tensor, "r V"]) -> Float[Tensor, "c V"]:
    logits, states = room[: len(states)], states.to(asked.dtype)
    if logits.dtype == asked.dtype:
        multiply(states, head.weight, out=logits)
    else:
        logits.copy_(states @ head.weight.T)
    return torch.log_softmax(head.finish(logits, asked.scale), -1, out=logits)


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """Log-probs of the model and of the other one, as the divergence takes them."""

    by: Divergence
    log_p: Float[Tensor, "c V"]
    log_q: Float[Tensor, "c V"]


def _compared(by: Divergence, log_p: Tensor, log_q: Tensor, room: Tensor | None = None) -> _Compared:
    if room is None:
        return _Compared(by, log_p, log_q)
    divided = torch.div(log_p, by.temperature, out=room[: len(log_p)])
    log_q /= by.temperature
    return _Compared(by, *(torch.log_softmax(one, -1, out=one) for one in (divided, log_q)))


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Log-probs over the vocabulary of some rows, and what they are compared with."""

    asked: Rows
    targets: Int[Tensor, "c 1"]
    log_p: Float[Tensor, "c V"]
    other: _Compared | None

    def columns(self) -> Columns:
        scores = [self.log_p.gather(1, self.targets)]
        if self.asked.entropy:
            scores.append(-(self.log_p.exp() * self.log_p).sum(1, keepdim=True))
        if self.asked.collision:
            scores.append((2 * self.log_p).logsumexp(1, keepdim=True))
        if (other := self.other) is not None:
            scores.append(divergences.value(other.by, other.log_p, other.log_q))
        return torch.cat(scores, 1)

    def slope(self, columns: Columns, grad: Columns) -> tuple[Float[Tensor, "c V"], Float[Tensor, "c 1"]]:
        """d loss / d logits, in the dtype of products. Nothing is left of the other's."""
        p, of, value = self.log_p.exp(), self.asked.named(grad), self.asked.named(columns)
        slope = (p * -of.logp).scatter_add_(1, self.targets, of.logp)
        if of.entropy is not None and value.entropy is not None:
            slope -= of.entropy * p * (self.log_p + value.entropy)
        if of.divergence is not None and (other := self.other) is not None:
            slope += of.divergence / other.by.temperature * divergences.slope(other.by, other.log_p, other.log_q)
        return slope.to(self.asked.dtype), torch.full_like(of.logp, self.asked.scale)
