"""Our kernel for `softmax.py`, in Triton: one program for each row, which reads it once for the largest logit and the sum of
exponentials, and once more to put p in the place of the logits. Each tile scales what was summed before by the largest that
is new: the online softmax of Milakov and Gimelshein (2018).

No two programs meet, so that the same logits always give the same bits. Imported where there is a GPU alone.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

TILE, WARPS = 16384, 16
"""Logits that a program holds at a time, and groups of 32 threads that it has."""


@triton.jit
def _softmax(logits, bias, targets, log_p, scale, vocabulary, row_stride, HAS_BIAS: tl.constexpr, TILE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    most, total = -1.0e30, 0.0
    for start in range(0, vocabulary, TILE):
        at = start + tl.arange(0, TILE)
        z = tl.load(logits + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
        if HAS_BIAS:
            z += tl.load(bias + at, mask=at < vocabulary, other=0.0).to(tl.float32)
        z *= scale
        higher = tl.maximum(most, tl.max(z, 0))
        total = total * tl.exp(most - higher) + tl.sum(tl.exp(z - higher), 0)
        most = higher
    log_sum = most + tl.log(total)
    target = tl.load(targets + row)
    of_target = tl.load(logits + target).to(tl.float32)
    if HAS_BIAS:
        of_target += tl.load(bias + target).to(tl.float32)
    tl.store(log_p + row, of_target * scale - log_sum)
    tl.debug_barrier()  # the target's logit is read before any thread puts a probability in its place
    for start in range(0, vocabulary, TILE):
        at = start + tl.arange(0, TILE)
        z = tl.load(logits + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
        if HAS_BIAS:
            z += tl.load(bias + at, mask=at < vocabulary, other=0.0).to(tl.float32)
        tl.store(logits + at, tl.exp(z * scale - log_sum).to(logits.dtype.element_ty), mask=at < vocabulary)


def launch(logits: Tensor, bias: Tensor | None, targets: Tensor, scale: float) -> Tensor:
    """See `softmax_`."""
    log_p = torch.empty(len(logits), 1, dtype=torch.float32, device=logits.device)
    given = (logits if bias is None else bias, targets.contiguous(), log_p, scale, logits.shape[1], logits.stride(0))
    options = {"HAS_BIAS": bias is not None, "TILE": TILE, "num_warps": WARPS}
    if len(logits):
        kernel: Any = _softmax
        kernel[(len(logits),)](logits, *given, **options)
    return log_p
