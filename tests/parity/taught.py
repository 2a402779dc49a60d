"""Naive losses of what learns from a teacher, written from their papers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from parity.rows import Row, clipped, divergence, normalised, row_mean, token_mean


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


def sdpo(
    rows: list[Row],
    *,
    distillation_weight: float = 1.0,
    compare: str = "tokens",
    average: str = "token",
    beta: float = 0.5,
    kl_max: float = 10.0,
    ratio_cap: float = 2.0,
    kl_coef: float = 0.0,
    updates: int = 1,
) -> Tensor:
    """(1 - w) · GRPO + w · distillation, of rows beside which there is another right answer: -sg(min(r, cap) · A) · log p at
    every token, A = log q - log p within ±kl_max; or as `sdft` on whole distributions (arXiv:2601.20802)."""
    policy, told = list[Tensor](), list[Tensor]()
    for row, advantage in zip(rows, normalised(rows), strict=True):
        policy.append(kl_coef * divergence(row, "k3"))
        if distillation_weight < 1:
            policy[-1] = policy[-1] - (1 - distillation_weight) * clipped(row, row.logp - row.old, advantage, 0.2, 0.2)
        if compare == "tokens":
            weight = (row.logp - row.old).exp().clamp(max=ratio_cap) * (row.taught - row.logp).clamp(-kl_max, kl_max)
            told.append(-weight.detach() * row.logp)
        else:
            mixed = (beta * row.teacher.exp() + (1 - beta) * row.policy.exp()).log()
            told.append(beta * kl(row.teacher, mixed) + (1 - beta) * kl(row.policy, mixed))
    beside = [(row, loss) for row, loss in zip(rows, told, strict=True) if row.beside]

    def mean(of: list[Row], losses: list[Tensor]) -> Tensor:
        return token_mean(of, losses) if average == "token" else row_mean(of, [loss.mean() for loss in losses])

    return mean(rows, policy) + distillation_weight * mean([row for row, _ in beside], [loss for _, loss in beside])


PAPERS = (kd, gkd, opd, sdft, sdpo)
