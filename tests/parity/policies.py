"""Naive losses of the policy gradients beside PPO's clip, each from its paper or from the code that its docstring names;
which of their options act in the random cases, and what each is when it does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from parity.rows import INFINITY, Row, centred, normalised, others, row_mean, shaped, token_mean


def gmpo(rows: list[Row], *, clip_low: float = 0.4, clip_high: float = 0.4, updates: int = 1) -> Tensor:
    """-1/G sum_i A (prod_t min(r A, clip(r) A) / A)^(1/|o_i|), the clip at e^(±0.4) (arXiv:2507.20673)."""
    losses = []
    for row, advantage in zip(rows, normalised(rows), strict=True):
        gap, sign = row.logp - row.old, float(advantage > 0) - float(advantage < 0)
        bounded = sign * torch.minimum(sign * gap, sign * gap.clamp(-clip_low, clip_high)) if sign else gap
        losses.append(-advantage * bounded.mean().exp())
    return row_mean(rows, losses)


def sapo(
    rows: list[Row], *, temperature_positive: float = 1.0, temperature_negative: float = 1.05, updates: int = 1
) -> Tensor:
    """-1/G sum_i 1/|o_i| sum_t 4/tau sigmoid(tau (r - 1)) A (arXiv:2511.20347)."""
    losses = []
    for row, advantage in zip(rows, normalised(rows), strict=True):
        tau = temperature_positive if advantage > 0 else temperature_negative
        losses.append((-4 / tau * torch.sigmoid(tau * ((row.logp - row.old).exp() - 1)) * advantage).mean())
    return row_mean(rows, losses)


def dppo(
    rows: list[Row],
    *,
    divergence: str = "tv",
    limit: float | None = None,
    ratio_cap: float = 20.0,
    updates: int = 1,
) -> Tensor:
    """-sg(min(r, c)) A log p of tokens that are inside, or on their way back (arXiv:2602.04879, with verl's 1e-8)."""
    limit = {"tv": 0.15, "kl": 0.05}[divergence] if limit is None else limit
    losses = []
    for row, advantage in zip(rows, normalised(rows), strict=True):
        p, old = row.logp.detach().exp(), row.old.exp()
        kl = old * (old.log() - p.log()) + (1 - old) * ((1 - old + 1e-8).log() - (1 - p + 1e-8).log())
        away = p > old if advantage > 0 else p < old
        outside = {"tv": (p - old).abs() > limit, "kl": kl > limit}[divergence]
        weight = (row.logp - row.old).exp().clamp(max=ratio_cap).detach() * ~(away & outside)
        losses.append(-weight * advantage * row.logp)
    return token_mean(rows, losses)


def vespo(
    rows: list[Row],
    *,
    positive_power: float = 2.0,
    positive_decay: float = 3.0,
    negative_power: float = 3.0,
    negative_decay: float = 2.0,
    updates: int = 1,
) -> Tensor:
    """-sg(phi(w)) A log p, phi(w) = e^lambda w^k e^(-lambda w), w = pi(y)/pi_old(y) (arXiv:2602.10693)."""
    losses = []
    for row, advantage in zip(rows, normalised(rows), strict=True):
        w = (row.logp - row.old).sum().detach().exp()
        k, decay = (positive_power, positive_decay) if advantage >= 0 else (negative_power, negative_decay)
        losses.append(-math.exp(decay) * w**k * (-decay * w).exp() * advantage * row.logp)
    return token_mean(rows, losses)


def gpg(rows: list[Row], *, std: bool = False) -> Tensor:
    """-alpha A log p, alpha = B / (B - M) for M rows in groups without a signal, A = (R - mean)/F (arXiv:2504.02546)."""
    without = sum(len(set(others(rows, row))) == 1 for row in rows)
    alpha = len(rows) / max(len(rows) - without, 1)
    advantages = normalised(rows) if std else centred(rows)
    return token_mean(rows, [-alpha * a * row.logp for row, a in zip(rows, advantages, strict=True)])


def dro(rows: list[Row], *, beta: float = 0.1, std: bool = True, updates: int = 1) -> Tensor:
    """-(A log p - beta/2 (log p - log p_old)²) (arXiv:2405.19107, as Tinker's documentation and verl's have it)."""
    advantages = normalised(rows) if std else centred(rows)
    square = [beta / 2 * (row.logp - row.old) ** 2 for row in rows]
    return token_mean(rows, [s - a * row.logp for s, row, a in zip(square, rows, advantages, strict=True)])


def topr(
    rows: list[Row],
    *,
    baseline: float = 0.0,
    average: str = "sequence_sum",
    kl_coef: float = 0.0,
    updates: int = 1,
    old: str = "trainer",
) -> Tensor:
    """-R log pi(y) of rewards that are not negative, -sg(min(pi(y)/mu(y), 1)) R log pi(y) of the others
    (arXiv:2503.14286)."""
    losses = []
    for row in shaped(rows, kl_coef):
        gain = row.reward - baseline
        ratio = (row.logp - row.old).sum().exp().clamp(max=1).detach() if gain < 0 else 1.0
        logp = row.logp.sum() if average == "sequence_sum" else row.logp.mean()
        losses.append(-ratio * gain * logp)
    return row_mean(rows, losses)


def rec(
    rows: list[Row],
    *,
    region: str = "one_side",
    importance: bool = False,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    far_low: float = 0.6,
    far_high: float = 2.0,
    updates: int = 1,
) -> Tensor:
    """-M A log p over tokens, M by r = pi/pi_old: PPO's region, both sides, or both and what lies far off and comes back;
    times sg(r) with importance (arXiv:2509.24203, as Trinity-RFT has it)."""
    losses = []
    for row, a in zip(rows, centred(rows), strict=True):
        r = (row.logp - row.old).exp().detach()
        inside = (r >= 1 - clip_low) & (r <= 1 + clip_high)
        one_side = (r <= 1 + clip_high) if a >= 0 else (r >= 1 - clip_low)
        far = (r <= 1 - far_low) if a > 0 else (r >= 1 + far_high)
        kept = {"one_side": one_side, "two_side": inside, "ring": inside | far}[region]
        losses.append(torch.where(kept, -a * (r if importance else 1.0) * row.logp, 0.0))
    return token_mean(rows, losses)


def remax(rows: list[Row], *, kl_coef: float = 0.0) -> Tensor:
    """-1/N sum_i (R_i - R of the greedy answer) log pi(y_i) (arXiv:2310.10505)."""
    rows = shaped(rows, kl_coef)
    return row_mean(rows, [-(row.reward - row.baseline) * row.logp.sum() for row in rows])


def a_star_po(rows: list[Row], *, beta: float = 1e-3) -> Tensor:
    """1/N sum_i (beta log(pi(y)/pi_ref(y)) - (R_i - V*))² (arXiv:2505.20686)."""
    return row_mean(rows, [(beta * (row.logp - row.ref).sum() - (row.reward - row.baseline)) ** 2 for row in rows])


NAIVE: dict[str, Callable[..., Tensor]] = {
    paper.__name__: paper for paper in (gmpo, sapo, dppo, vespo, gpg, dro, topr, rec, remax, a_star_po)
}

OFF: dict[tuple[str, str], Any] = {
    ("sapo", "temperature_positive"): 1e-9,
    ("sapo", "temperature_negative"): 1e-9,
    ("dppo", "limit"): INFINITY,
    ("dppo", "ratio_cap"): INFINITY,
    ("vespo", "positive_power"): 1.0,
    ("vespo", "positive_decay"): 1.0,
    ("vespo", "negative_power"): 1.0,
    ("vespo", "negative_decay"): 1.0,
    ("dro", "beta"): 0.0,
    ("topr", "baseline"): 0.0,
    ("topr", "average"): "sequence_sum",
    ("gspo", "average"): "sequence_mean",
    ("grpo", "kl"): "k3",
    ("rec", "region"): "one_side",
    ("rec", "importance"): False,
    ("rec", "far_low"): INFINITY,
    ("rec", "far_high"): INFINITY,
    ("grpo", "off_policy_mask"): None,
}
ACTING = {
    "gmpo-several": ("clip_low", "clip_high"),
    "sapo-several": ("temperature_positive", "temperature_negative"),
    "dppo-several": ("limit", "ratio_cap"),
    "dppo-kl": ("limit",),
    "vespo-several": ("positive_power", "positive_decay", "negative_power", "negative_decay"),
    "dro-several": ("beta",),
    "topr-several": ("baseline", "average"),
    "gspo-by_tokens": ("average",),
    "remax-kl": ("kl_coef",),
    "rec-several": ("clip_low", "clip_high"),
    "rec-two_side": ("region", "importance"),
    "rec-ring": ("far_low", "far_high"),
    "grpo-unbiased": ("kl",),
    "grpo-stale_rows": ("off_policy_mask",),
}
