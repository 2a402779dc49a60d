"""Naive losses of algorithms over rollouts and demonstrations, each from its paper, or from code that its docstring names."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from parity.rows import Row, centred, clipped, divergence, normalised, token_mean


def relift(
    rows: list[Row],
    *,
    sft_coef: float = 1.0,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    std: bool = False,
    kl_coef: float = 0.0,
    entropy_coef: float = 0.0,
    updates: int = 1,
) -> Tensor:
    """Means over tokens: of PPO's loss on rollouts, and of -log p on the demonstrations that are there (arXiv:2506.07527, and
    its code)."""
    tried, shown = [row for row in rows if not row.shown], [row for row in rows if row.shown]
    advantages = normalised(tried) if std else centred(tried)
    gains = [clipped(row, row.logp - row.old, a, clip_low, clip_high) for row, a in zip(tried, advantages, strict=True)]
    loss = token_mean(tried, [-gain for gain in gains])
    loss = loss + kl_coef * token_mean(tried, [divergence(row, "k3") for row in tried])
    loss = loss + entropy_coef * token_mean(tried, [(row.policy.exp() * row.policy).sum(-1) for row in tried])
    nll = [-row.logp for row in shown]
    return loss + sft_coef * token_mean(shown, nll) if any(map(len, shown)) else loss + 0.0 * torch.cat(nll).sum()


NAIVE: dict[str, Callable[..., Tensor]] = {paper.__name__: paper for paper in (relift,)}
ACTING = {"relift": ("sft_coef",), "relift-several": ("clip_low", "clip_high", "std", "kl_coef", "entropy_coef")}
