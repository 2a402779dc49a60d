"""From hidden states to log-probs, entropy and full-vocabulary KL, in row chunks. The vocabulary axis ends here.

The logits of the batch never exist: only the rows that carry loss are scored, a chunk at a time, and the backward pass
computes each chunk's logits again. With p = softmax(z / T) and y the target,

    d logp / dz = (e_y - p) / T      d H / dz = -p (log p + H) / T      d KL(q || p) / dz = (p - q) / T

Cost 8 N H V operations, forward and backward together; a one-pass form for token-scope algorithms takes this place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_LOGITS = {"cpu": 2**24, "cuda": 2**27}
"""Logits held at a time. On CPU 64 MB in float32, 110 rows of a vocabulary of 152 k, past which nothing is gained and the
caches are left; on GPUs 512 MB, enough rows for full matrix throughput."""


@dataclass(frozen=True, slots=True)
class Head:
    """An output layer: logits = hidden @ weight.T + bias."""

    weight: Float[Tensor, "V H"]
    bias: Float[Tensor, " V"] | None = None


@dataclass(frozen=True, slots=True)
class Teacher:
    """Another model's hidden states at the same positions, and its head: for the full-vocabulary KL."""

    hidden: Float[Tensor, "n H2"]
    head: Head


def token_logprobs(
    hidden: Float[Tensor, "n H"],
    head: Head,
    targets: Int[Tensor, " n"],
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    teacher: Teacher | None = None,
) -> Float[Tensor, "n k"]:
    """Columns, with gradient to `hidden` and the head: log p(target); then entropy and KL(teacher || p) where asked for.

    Computed in the dtype of `hidden` (autocast's, where it is on) up to the logits, in float32 from there, float64 if
    the inputs are. The gradient is differentiable once; a second derivative is an error.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        reference = (None, None, None) if teacher is None else (teacher.hidden, teacher.head.weight, teacher.head.bias)
        return _Score.apply(hidden, head.weight, head.bias, targets, *reference, 1 / temperature, entropy, dtype)  # type: ignore[no-any-return]


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        teacher_hidden: Tensor | None,
        teacher_weight: Tensor | None,
        teacher_bias: Tensor | None,
        scale: float,
        entropy: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, targets, teacher_hidden, teacher_weight, teacher_bias)
        ctx.options = (scale, entropy, dtype)
        columns: list[Tensor] = []
        head, teacher_head = _cast(weight, bias, dtype), _cast(teacher_weight, teacher_bias, dtype)
        for rows in _chunks(len(targets), weight):
            log_p = _log_softmax(hidden, head, rows, scale)
            scores = [log_p.gather(1, targets[rows, None])]
            if entropy:
                scores.append(-(log_p.exp() * log_p).sum(1, keepdim=True))
            if teacher_hidden is not None:
                log_q = _log_softmax(teacher_hidden, teacher_head, rows, scale)
                scores.append((log_q.exp() * (log_q - log_p)).sum(1, keepdim=True))
            columns.append(torch.cat(scores, 1))
        return torch.cat(columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden, weight, bias, targets, teacher_hidden, teacher_weight, teacher_bias = ctx.saved_tensors
        scale, entropy, dtype = ctx.options
        wide = torch.promote_types(torch.float32, grad.dtype)
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(weight, dtype=wide) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias, dtype=wide) if ctx.needs_input_grad[2] else None
        head, teacher_head = _cast(weight, bias, dtype), _cast(teacher_weight, teacher_bias, dtype)
        for rows in _chunks(len(targets), weight):
            log_p = _log_softmax(hidden, head, rows, scale)
            p = log_p.exp()
            d_z = p * -grad[rows, :1]
            d_z.scatter_add_(1, targets[rows, None], grad[rows, :1])
            if entropy:
                d_z -= grad[rows, 1:2] * p * (log_p - (p * log_p).sum(1, keepdim=True))
            if teacher_hidden is not None:
                q = _log_softmax(teacher_hidden, teacher_head, rows, scale).exp_()
                d_z += grad[rows, -1:] * (p - q)
            d_z = d_z.mul_(scale).to(dtype)
            if d_hidden is not None:
                d_hidden[rows] = (d_z @ head[0]).to(hidden.dtype)
            if d_weight is not None:
                d_weight += d_z.T @ hidden[rows].to(dtype)
            if d_bias is not None:
                d_bias += d_z.sum(0, dtype=wide)
        if d_weight is not None:
            d_weight = d_weight.to(weight.dtype)
        if d_bias is not None:
            d_bias = d_bias.to(bias.dtype)
        return d_hidden, d_weight, d_bias, None, None, None, None, None, None, None


def _chunks(rows: int, weight: Tensor) -> list[slice]:
    size = max(1, CHUNK_LOGITS.get(weight.device.type, CHUNK_LOGITS["cuda"]) // len(weight))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)] or [slice(0, 0)]


def _cast(weight: Tensor | None, bias: Tensor | None, dtype: torch.dtype) -> tuple[Any, Tensor | None]:
    return None if weight is None else weight.to(dtype), None if bias is None else bias.to(dtype)


def _log_softmax(hidden: Tensor, head: tuple[Any, Tensor | None], rows: slice, scale: float) -> Float[Tensor, "n V"]:
    weight, bias = head
    logits = hidden[rows].to(weight.dtype) @ weight.T
    if bias is not None:
        logits = logits + bias
    logits = logits.to(torch.promote_types(torch.float32, weight.dtype))
    return torch.log_softmax(logits.mul_(scale) if scale != 1 else logits, -1)
