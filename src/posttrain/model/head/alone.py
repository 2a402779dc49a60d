"""Log-probs of the targets alone.

With p = softmax(z / T) and y the target, d logp / dz = (e_y - p) / T: what the logits become does not hang on the loss, whose
derivative by logp multiplies its rows from outside. So it is made at once, and of 16-bit logits few are ever in float32; none
where `softmax.py` has a kernel for them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from posttrain.model.head.layer import Columns, Head
from posttrain.model.head.rows import Chunk, Rows, rows_at_a_time
from posttrain.model.head.softmax import kernel_fails, softmax_
from posttrain.model.layers.products import multiply
from posttrain.model.layers.workspace import WORKSPACE

WIDENED_ROWS = 256
"""Of 16-bit logits, rows that are in float32 at a time."""


def log_probs(asked: Rows, hidden: Float[Tensor, "n H"], head: Head, *, slopes: bool) -> Iterator[Chunk]:
    """The rows, a chunk at a time. `head` is in the dtype of products; chunks have a slope if `slopes`."""
    narrow, device, vocabulary = asked.dtype != asked.wide, hidden.device, len(head.weight)
    size = min(rows_at_a_time(device.type, narrow=narrow), len(hidden)) or 1
    held = WORKSPACE.empty(size, vocabulary, dtype=asked.dtype, device=device)
    at_once = narrow and kernel_fails(device, asked.dtype) is None
    widened = narrow and not at_once
    room = WORKSPACE.empty(min(size, WIDENED_ROWS), vocabulary, dtype=asked.wide, device=device) if widened else held
    for start in range(0, len(hidden), size):
        states = hidden[start : start + size].to(asked.dtype)
        targets = asked.targets[start : start + size, None]
        logits, made = multiply(states, head.weight, out=held[: len(states)]), list[Columns]()
        for part in (slice(i, i + len(room)) for i in range(0, len(states), len(room))):
            of = logits[part]
            if at_once:
                made.append(_scored_at_once(asked, head, of, targets[part], slopes=slopes))
                continue
            wide = room[: len(of)].copy_(of) if narrow else of
            made.append(_scored(asked, states[part], head, wide, targets[part], slopes=slopes))
            if narrow and slopes:
                of.copy_(wide)
        rows = slice(start, start + len(states))
        yield Chunk(rows, torch.cat(made), lambda grad, slope=logits: (slope, -grad * asked.scale))


def _scored_at_once(
    asked: Rows, head: Head, logits: Float[Tensor, "c V"], targets: Int[Tensor, "c 1"], *, slopes: bool
) -> Columns:
    log_p = softmax_(logits, head.bias, targets, asked.scale)
    if slopes:
        logits.scatter_(1, targets, log_p.expm1().to(logits.dtype))
    return log_p


def _scored(
    asked: Rows, states: Tensor, head: Head, logits: Float[Tensor, "c V"], targets: Tensor, *, slopes: bool
) -> Columns:
    """log p of the targets. The logits become p - e_y, or p.

    On a CPU log p is the logarithm of p, which spares the logits a pass and is exact where p is a normal number; of rows
    where it is smaller the logits are made again. On a GPU to ask for such rows would mean to wait.
    """
    head.finish(logits, asked.scale)
    if logits.device.type == "cpu":
        p = torch.softmax(logits, -1, out=logits).gather(1, targets)
        log_p, faint = p.log(), (p[:, 0] < torch.finfo(p.dtype).tiny).nonzero()[:, 0]
        if len(faint):
            again = head.finish((states[faint] @ head.weight.T).to(asked.wide), asked.scale)
            log_p[faint] = again.log_softmax(-1).gather(1, targets[faint])
    else:
        log_p = torch.log_softmax(logits, -1, out=logits).gather(1, targets)
        logits.exp_()
    if slopes:
        logits.scatter_(1, targets, log_p.expm1())
    return log_p
