"""Naive losses of rollouts that go on from what was demonstrated, each from what its docstring names; and which of their
options act in the random cases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from parity.rows import Row, clipped, divergence, normalised, row_mean, token_mean

OF_TOKENS = ("logp", "old", "ref", "behavior", "sampled", "policy", "reference", "teacher", "taught", "entropy", "weight")


def part(row: Row, kept: Tensor) -> Row:
    """The row as if these were all its tokens."""
    tokens = [token for token, keep in zip(row.tokens, kept, strict=True) if keep]
    return dataclasses.replace(row, tokens=tokens, **{name: getattr(row, name)[kept] for name in OF_TOKENS})


def averaged(rows: list[Row], losses: list[Tensor], average: str) -> Tensor:
    return token_mean(rows, losses) if average == "token" else row_mean(rows, [loss.mean() for loss in losses])


def uft(
    rows: list[Row],
    *,
    average: str = "token",
    sft_coef: float = 0.001,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coef: float = 0.001,
    entropy_coef: float = 0.001,
    updates: int = 1,
) -> Tensor:
    """min(r A, clip(r) A), k3 and the entropy of what was sampled, and the likelihood of the hint (arXiv:2505.16984, as its
    code has it: `policy_loss = pg_loss - entropy_coeff * entropy + sft_loss_coef * sft_loss + kl_loss_coef * kl`)."""
    own, hints = ([part(row, row.sampled == flag) for row in rows] for flag in (True, False))
    pairs = list(zip(own, normalised(rows), strict=True))
    policy = averaged(own, [-clipped(row, row.logp - row.old, a, clip_low, clip_high) for row, a in pairs], average)
    kl = averaged(own, [divergence(row, "k3") for row in own], average)
    entropy = token_mean(own, [-(row.policy.exp() * row.policy).sum(-1) for row in own])
    return policy + kl_coef * kl - entropy_coef * entropy + sft_coef * token_mean(hints, [-row.logp for row in hints])


def bread(
    rows: list[Row],
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coef: float = 0.0,
    updates: int = 1,
) -> Tensor:
    """GRPO (arXiv:2402.03300, eq. 3) on what was sampled after a head of the demonstration (arXiv:2506.17211; that the head
    carries no loss is this package's choice)."""
    own = [part(row, row.sampled) for row in rows]
    pairs = zip(own, normalised(rows), strict=True)
    policy = averaged(own, [-clipped(row, row.logp - row.old, a, clip_low, clip_high) for row, a in pairs], "row")
    return policy + kl_coef * averaged(own, [divergence(row, "k3") for row in own], "row")


NAIVE: dict[str, Callable[..., Tensor]] = {paper.__name__: paper for paper in (uft, bread)}

OFF: dict[tuple[str, str], Any] = {
    ("hpt", "coefficients"): None,
    ("hpt", "gate_off"): None,
    ("hpt", "off_coef"): 0.0,
    ("uft", "average"): "token",
}
ACTING = {
    "uft-several": ("clip_low", "clip_high", "sft_coef", "kl_coef", "entropy_coef", "average"),
    "bread-several": ("clip_low", "clip_high"),
    "bread-kl": ("kl_coef",),
}
