"""Naive losses of what learns from a teacher, written from their papers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from parity.rows import Row, divergence, normalised, token_mean


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of log-probs, at every token."""
    return (p.exp() * (p - q)).sum(-1)


def kd(rows: list[Row], *, alpha: float = 0.5, temperature: float = 1.0) -> Tensor:
    """(1 - alpha) · -log p + alpha · T² · KL(q_T || p_T) (arXiv:1503.02531, section 2)."""
    soft = [kl(*((one / temperature).log_softmax(-1) for one in (row.teacher, row.policy))) for row in rows]
    return (1 - alpha) * token_mean(rows, [-row.logp for row in rows]) + alpha * temperature**2 * token_mean(rows, soft)


def gkd(rows: list[Row], *, beta: float = 0.5, demonstrations: int = 0) -> Tensor:
    """beta · KL(q || m) + (1 - beta) · KL(p || m), m = beta q + (1 - beta) p; KL(q || p) at 0 and KL(p || q) at 1
    (arXiv:2306.13649, eq. 1)."""
    if beta in (0, 1):
        return token_mean(rows, [kl(row.policy, row.teacher) if beta else kl(row.teacher, row.policy) for row in rows])
    mixed = [(beta * row.teacher.exp() + (1 - beta) * row.policy.exp()).log() for row in rows]
    pairs = zip(rows, mixed, strict=True)
    return token_mean(rows, [beta * kl(row.teacher, m) + (1 - beta) * kl(row.policy, m) for row, m in pairs])


def opd(
    rows: list[Row],
    *,
    reward_coef: float = 0.0,
    kl_max: float = 10.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coef: float = 0.0,
    updates: int = 1,
) -> Tensor:
    """-min(r A, clip(r) A) at every token, A = log q - log pi_old within ±kl_max, and c · (R - mean) / std beside it."""
    losses: list[Tensor] = []
    for row, rewarded in zip(rows, normalised(rows), strict=True):
        advantage = (row.taught - row.old).clamp(-kl_max, kl_max) + reward_coef * rewarded
        ratio = (row.logp - row.old).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)
        losses.append(-gain + kl_coef * divergence(row, "k3"))
    return token_mean(rows, losses)


def sdft(rows: list[Row], *, compare: str = "distributions", beta: float = 0.5, kl_max: float = 10.0) -> Tensor:
    """beta · KL(q || m) + (1 - beta) · KL(p || m) at every token; or -sg(log q(y) - log p(y), within ±kl_max) · log p(y), the
    gradient of KL(p || q) in expectation over y (arXiv:2601.19897; q is the model itself, told more)."""
    if compare == "distributions":
        weighed = [torch.stack([row.teacher + math.log(beta), row.policy + math.log1p(-beta)]) for row in rows]
        pairs = list(zip(rows, (both.logsumexp(0) for both in weighed), strict=True))
        return token_mean(rows, [beta * kl(row.teacher, m) + (1 - beta) * kl(row.policy, m) for row, m in pairs])
    gains = [(row.taught - row.logp).detach().clamp(-kl_max, kl_max) * row.logp for row in rows]
    return -token_mean(rows, gains)


PAPERS = (kd, gkd, opd, sdft)
