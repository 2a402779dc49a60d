"""Scores of whole distributions: entropy, and the KL from a reference, beside log-probs.

With p = softmax(z / T) and y the target,

    d logp / dz = (e_y - p) / T      d H / dz = -p (log p + H) / T      d KL(q || p) / dz = (p - q) / T
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from posttrain.model.head.layer import Columns, Head, named
from posttrain.model.head.rows import Chunk, Rows, rows_at_a_time
from posttrain.model.head.workspace import WORKSPACE


def distributions(asked: Rows, hidden: Float[Tensor, "n H"], head: Head) -> Iterator[Chunk]:
    """The rows, a chunk at a time. `head` is in the dtype of products; log-probs of the vocabulary are in that of scores."""
    models, reference = [(hidden, head)], asked.reference
    if reference is not None:
        models.append((reference.hidden, reference.head.to(asked.dtype)))
    size = min(rows_at_a_time(hidden.device.type), len(hidden)) or 1
    rooms = [WORKSPACE.empty(size, len(head.weight), dtype=asked.wide, device=hidden.device) for _ in models]
    for start in range(0, len(hidden), size):
        rows = slice(start, min(start + size, len(hidden)))
        logs = [_log_softmax(asked, states[rows], layer, room) for (states, layer), room in zip(models, rooms, strict=True)]
        pair = _Pair(asked, asked.targets[rows, None], logs[0], logs[1] if logs[1:] else None)
        columns = pair.columns()
        yield Chunk(rows, columns, lambda grad, pair=pair, columns=columns: pair.slope(columns, grad))


def _log_softmax(asked: Rows, states: Float[Tensor, "c H"], head: Head, room: Float[Tensor, "r V"]) -> Float[Tensor, "c V"]:
    logits, states = room[: len(states)], states.to(asked.dtype)
    if logits.dtype == asked.dtype:
        torch.mm(states, head.weight.T, out=logits)
    else:
        logits.copy_(states @ head.weight.T)
    return torch.log_softmax(head.finish(logits, asked.scale), -1, out=logits)


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Log-probs over the vocabulary of some rows: p of the model, q of the reference."""

    asked: Rows
    targets: Int[Tensor, "c 1"]
    log_p: Float[Tensor, "c V"]
    log_q: Float[Tensor, "c V"] | None

    def columns(self) -> Columns:
        scores = [self.log_p.gather(1, self.targets)]
        if self.asked.entropy:
            scores.append(-(self.log_p.exp() * self.log_p).sum(1, keepdim=True))
        if self.log_q is not None:
            scores.append((self.log_q.exp() * (self.log_q - self.log_p)).sum(1, keepdim=True))
        return torch.cat(scores, 1)

    def slope(self, columns: Columns, grad: Columns) -> tuple[Float[Tensor, "c V"], Float[Tensor, "c 1"]]:
        """d loss / d logits, in the dtype of products. Nothing is left of log q."""
        entropy = self.asked.entropy
        p, of, value = self.log_p.exp(), named(grad, entropy=entropy), named(columns, entropy=entropy)
        slope = (p * -of.logp).scatter_add_(1, self.targets, of.logp)
        if of.entropy is not None and value.entropy is not None:
            slope -= of.entropy * p * (self.log_p + value.entropy)
        if of.kl is not None and self.log_q is not None:
            slope += of.kl * (p - self.log_q.exp_())
        return slope.to(self.asked.dtype), torch.full_like(of.logp, self.asked.scale)
