"""Naive losses over demonstrations, each from its paper."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from parity.rows import Row, clipped, token_mean


def sft(rows: list[Row], *, weights: str = "unread", kl_coef: float = 0.0) -> Tensor:
    """-log p, a mean over tokens; with weights their weighted sum, over the tokens or over the sum of the weights
    (arXiv:2412.15495), and a coefficient times KL(pi_start || pi)."""
    if weights == "unread":
        return token_mean(rows, [-row.logp for row in rows]) + kl_coef * token_mean(rows, [anchor(row) for row in rows])
    total = sum((row.weight * -row.logp).sum() for row in rows)
    return total / sum(len(row) if weights == "per_token" else row.weight.abs().sum() for row in rows)


def anchor(row: Row) -> Tensor:
    """KL(pi_start || pi) over the whole vocabulary, at every token."""
    return (row.reference.exp() * (row.reference - row.policy)).sum(-1)


def dft(rows: list[Row], *, sft_coef: float = 0.0) -> Tensor:
    """-sg(p) log p (arXiv:2508.05629, eq. 9), and a coefficient times -log p."""
    return token_mean(rows, [-(row.logp.exp().detach() + sft_coef) * row.logp for row in rows])


def asft(rows: list[Row], *, kl_coef: float = 0.05, sft_coef: float = 0.0) -> Tensor:
    """DFT + coefficient · KL(pi_start || pi), over the whole vocabulary at every token (arXiv:2509.23753)."""
    return dft(rows, sft_coef=sft_coef) + kl_coef * token_mean(rows, [anchor(row) for row in rows])


def iw_sft(rows: list[Row], *, exponent: float = 1.0, max_weight: float = 16.0) -> Tensor:
    """-sg(min((pi(y)/pi_ref(y))^(exponent/|y|), 16)) log p (arXiv:2507.12856, as its official code has it)."""
    weight = [(exponent * (row.logp - row.ref).mean()).exp().clamp(max=max_weight).detach() for row in rows]
    return token_mean(rows, [-w * row.logp for w, row in zip(weight, rows, strict=True)])


def psft(rows: list[Row], *, clip_low: float = 0.2, clip_high: float = 0.28) -> Tensor:
    """-min(r, clip(r)) (arXiv:2508.17784)."""
    return token_mean(rows, [-clipped(row, row.logp - row.old, 1.0, clip_low, clip_high) for row in rows])


PAPERS: tuple[Callable[..., Tensor], ...] = (sft, dft, asft, iw_sft, psft)
