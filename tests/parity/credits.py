"""Naive losses of the policy gradients whose credit is their own, each from its paper or from the code that its docstring
names; which of their options act in the random cases, and what each is when it does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from parity.rows import INFINITY, Row, centred, deviation, mean, normalised, others, row_mean, token_mean


def surrogate(rows: list[Row], advantages: list[Any], clip_low: float, clip_high: float) -> list[Tensor]:
    """-min(r A, clip(r) A) of each token; advantages are of rows or of tokens."""
    losses = []
    for row, advantage in zip(rows, advantages, strict=True):
        gain = torch.as_tensor(advantage, dtype=torch.float64).expand(len(row))
        ratio = (row.logp - row.old).exp()
        losses.append(-torch.minimum(ratio * gain, ratio.clamp(1 - clip_low, 1 + clip_high) * gain))
    return losses


def row_means(rows: list[Row], losses: list[Tensor]) -> Tensor:
    return row_mean(rows, [loss.mean() for loss in losses])


def group_of(rows: list[Row], row: Row) -> list[Row]:
    return [other for other in rows if other.group == row.group]


def white(advantages: list[Tensor]) -> list[Tensor]:
    """(A - mean) / std over all tokens, with verl's 1e-8 in the variance."""
    every = torch.cat(advantages)
    return [(one - every.mean()) / (every.var() + 1e-8).sqrt() for one in advantages]


def share_right(rows: list[Row], row: Row) -> float:
    return mean([float(other.correct) for other in group_of(rows, row)])


def opo(rows: list[Row]) -> Tensor:
    """-(R - sum_j |y_j| R_j / sum_j |y_j|) log p (arXiv:2505.23585)."""
    losses = []
    for row in rows:
        group = group_of(rows, row)
        base = sum(len(other) * other.reward for other in group) / max(sum(map(len, group)), 1)
        losses.append(-(row.reward - base) * row.logp)
    return token_mean(rows, losses)


def best_of_group(
    rows: list[Row], *, std: bool = True, clip_low: float = 0.2, clip_high: float = 0.2, updates: int = 1
) -> Tensor:
    """A of the best answer is its lead over the second, that of all others 0 (arXiv:2503.19595)."""
    advantages = []
    for row in rows:
        lead = max(row.reward - max(others(rows, row, leave_out=True)), 0.0)
        advantages.append(lead / (deviation(others(rows, row)) + 1e-4 if std else 1.0))
    return token_mean(rows, surrogate(rows, advantages, clip_low, clip_high))


def pass_k(rows: list[Row], *, k: int = 4, clip_low: float = 0.2, clip_high: float = 0.2, updates: int = 1) -> Tensor:
    """Every subset of k answers of a group is one try, worth 1 where it has a right one; an answer's advantage is the mean
    over the tries that it is in of (worth - mean) / std over all tries (arXiv:2508.10751)."""
    advantages = []
    for row in rows:
        group = group_of(rows, row)
        tries = list(combinations(range(len(group)), k))
        worth = [float(any(group[i].correct for i in one)) for one in tries]
        spread = math.sqrt(mean(worth) * (1 - mean(worth)))
        own = [value for one, value in zip(tries, worth, strict=True) if any(group[i] is row for i in one)]
        advantages.append((mean(own) - mean(worth)) / spread if spread else 0.0)
    return token_mean(rows, surrogate(rows, advantages, clip_low, clip_high))


def gdpo(
    rows: list[Row],
    *,
    reward_weights: dict[str, float] | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    updates: int = 1,
) -> Tensor:
    """Each reward normalised in its group, summed by weight, whitened over all tokens (arXiv:2601.05242)."""
    weights = reward_weights or dict.fromkeys(rows[0].rewards, 1.0)
    sums = []
    for row in rows:
        values = {name: [other.rewards[name] for other in group_of(rows, row)] for name in weights}
        scores = {name: (row.rewards[name] - mean(of)) / (deviation(of) + 1e-4) for name, of in values.items()}
        sums.append(torch.full_like(row.old, sum(weights[name] * score for name, score in scores.items())))
    return row_means(rows, surrogate(rows, white(sums), clip_low, clip_high))


def f_grpo(rows: list[Row], *, power: float = 1.0, clip_low: float = 0.2, clip_high: float = 0.2, updates: int = 1) -> Tensor:
    """GRPO with (1 - p)^gamma A, p the share of right answers (arXiv:2602.06717)."""
    advantages = [a * (1 - share_right(rows, row)) ** power for row, a in zip(rows, normalised(rows), strict=True)]
    return row_means(rows, surrogate(rows, advantages, clip_low, clip_high))


def grpo_lead(
    rows: list[Row],
    *,
    length: float = 0.05,
    least: float = 0.4,
    most: float = 1.5,
    middle: float = 0.75,
    steepness: float = 10.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    updates: int = 1,
) -> Tensor:
    """R = exp(-alpha z) where right, -1 where wrong, z the standardised length among the right ones of the group; A times a
    logistic weight of p where A > 0, of 1 - p elsewhere (arXiv:2504.09696, with the constants of its code)."""
    for row in rows:
        lengths = [float(len(other)) for other in group_of(rows, row) if other.correct]
        z = (len(row) - mean(lengths)) / (deviation(lengths) + 1e-6) if row.correct else 0.0
        row.reward = math.exp(-length * z) if row.correct else -1.0
    advantages = []
    for row, advantage in zip(rows, normalised(rows), strict=True):
        p = share_right(rows, row) if advantage > 0 else 1 - share_right(rows, row)
        advantages.append(advantage * (least + (most - least) / (1 + math.exp(steepness * (p - middle)))))
    return token_mean(rows, surrogate(rows, advantages, clip_low, clip_high))


def top_entropy(
    rows: list[Row], *, keep: float = 0.2, clip_low: float = 0.2, clip_high: float = 0.28, updates: int = 1
) -> Tensor:
    """DAPO's loss of the tokens of highest entropy, divided by the number of all (arXiv:2506.01939)."""
    entropies = sorted(float(h) for row in rows for h in row.entropy)
    least = entropies[int(round((1 - keep) * len(entropies), 6))]
    advantages = [a * (row.entropy >= least).double() for row, a in zip(rows, normalised(rows), strict=True)]
    return token_mean(rows, surrogate(rows, advantages, clip_low, clip_high))


def covariances(rows: list[Row]) -> list[Tensor]:
    """(A - mean A)(log p - mean log p) of every token, of the policy that collected (arXiv:2505.22617)."""
    advantages = [torch.full_like(row.old, a) for row, a in zip(rows, normalised(rows), strict=True)]
    gains, logps = torch.cat(advantages), torch.cat([row.old for row in rows])
    flat = (gains - gains.mean()) * (logps - logps.mean())
    return list(flat.split([len(row) for row in rows]))


def scattered(row: Row, place: int) -> int:
    """A number as good as random: (sum_s K^(s + 1) (token_s + 1) + t) K, in signed integers of 64 bits, K = 2^64 over the
    golden ratio, s and t from 1."""
    golden = 0x9E3779B97F4A7C15
    ids = sum(golden ** (s + 2) * (token + 1) for s, token in enumerate(row.tokens))
    product = (ids + place + 1) * golden % 2**64
    return product - 2**64 if product >= 2**63 else product


def clip_cov(
    rows: list[Row],
    *,
    share: float = 2e-4,
    low: float = 1.0,
    high: float = 5.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    updates: int = 1,
) -> Tensor:
    """PPO's loss without a share of tokens whose covariance lies between two bounds (arXiv:2505.22617)."""
    of_tokens = covariances(rows)
    tokens = [(i, t) for i, one in enumerate(of_tokens) for t in range(len(one)) if low < one[t] < high]
    tokens.sort(key=lambda at: scattered(rows[at[0]], at[1]))
    kept = [torch.ones_like(row.old) for row in rows]
    for i, t in tokens[: max(int(share * sum(map(len, rows))), 1)]:
        kept[i][t] = 0.0
    advantages = [a * one for a, one in zip(normalised(rows), kept, strict=True)]
    return token_mean(rows, surrogate(rows, advantages, clip_low, clip_high))


def kl_cov(rows: list[Row], *, share: float = 2e-3, kl_cov_coef: float = 1.0, updates: int = 1) -> Tensor:
    """-r A, and + coefficient · |log r| on the share of tokens of largest covariance (arXiv:2505.22617)."""
    of_tokens = covariances(rows)
    number = max(int(share * sum(map(len, rows))), 1)
    least = sorted(torch.cat(of_tokens).tolist())[-number]
    losses = []
    for row, advantage, one in zip(rows, normalised(rows), of_tokens, strict=True):
        gap = row.logp - row.old
        losses.append(-gap.exp() * advantage + kl_cov_coef * gap.abs() * (one >= least))
    return token_mean(rows, losses)


def reinforce_pp(
    rows: list[Row],
    *,
    kl_coef: float = 0.01,
    discount: float = 1.0,
    baseline: str = "none",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    updates: int = 1,
) -> Tensor:
    """PPO's loss with A_t the discounted sum of what follows, whitened over all tokens (arXiv:2501.03262)."""
    returns = []
    for row, gain in zip(rows, centred(rows) if baseline == "group_mean" else [row.reward for row in rows], strict=True):
        each = (-kl_coef * (row.old - row.ref)).tolist()
        each = [*each[:-1], each[-1] + gain] if each else []
        sums = [sum(discount ** (s - t) * each[s] for s in range(t, len(each))) for t in range(len(each))]
        returns.append(torch.tensor(sums, dtype=torch.float64))
    return token_mean(rows, surrogate(rows, white(returns), clip_low, clip_high))


def asymre(rows: list[Row], *, shift: float = 0.1, updates: int = 1) -> Tensor:
    """-(R - V) log p, V = mean - delta, whatever the ratio (arXiv:2506.20520)."""
    return token_mean(rows, [-(a + shift) * row.logp for row, a in zip(rows, centred(rows), strict=True)])


def opmd(rows: list[Row], *, temperature: float = 1.0, baseline: str = "soft_maximum", updates: int = 1) -> Tensor:
    """-(R - tau log mean exp(R/tau)) log p / (1 + tau), whatever the ratio (arXiv:2501.12599, as Trinity-RFT has it)."""
    losses = []
    for row in rows:
        base = temperature * math.log(mean([math.exp(reward / temperature) for reward in others(rows, row)]))
        base = mean(others(rows, row)) if baseline == "mean" else base
        losses.append(-(row.reward - base) * row.logp / (1 + temperature))
    return token_mean(rows, losses)


def p3o(rows: list[Row]) -> Tensor:
    """-sg(min(w, ESS)) A log p + (1 - ESS) KL(pi || mu), w = pi/mu, ESS = (sum w)² / (n sum w²) (arXiv:1905.01756), of the
    policy that collected, whose weights these are."""
    gaps = [torch.where(row.sampled, row.old - row.behavior, 0.0) for row in rows]
    weights = torch.cat(gaps).exp()
    size = float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))
    losses = []
    for row, gap, advantage in zip(rows, gaps, normalised(rows), strict=True):
        moved = row.logp - row.logp.detach() + gap  # log pi/mu, with its gradient
        losses.append(-gap.exp().clamp(max=size) * advantage * row.logp + (1 - size) * (moved + (-moved).exp() - 1))
    return token_mean(rows, losses)


NAIVE: dict[str, Callable[..., Tensor]] = {
    paper.__name__: paper
    for paper in (
        opo, best_of_group, pass_k, gdpo, f_grpo, grpo_lead, top_entropy, clip_cov, kl_cov, reinforce_pp, asymre, opmd, p3o,
    )
}  # fmt: skip
OFF: dict[tuple[str, str], Any] = {
    ("best_of_group", "std"): False,
    ("pass_k", "k"): 1,
    ("gdpo", "reward_weights"): None,
    ("f_grpo", "power"): 0.0,
    ("grpo_lead", "length"): 0.0,
    ("grpo_lead", "least"): 1.0,
    ("grpo_lead", "most"): 1.0,
    ("grpo_lead", "middle"): 0.5,
    ("grpo_lead", "steepness"): 1.0,
    ("clip_cov", "share"): 0.0,
    ("clip_cov", "low"): -INFINITY,
    ("clip_cov", "high"): INFINITY,
    ("kl_cov", "share"): 0.0,
    ("kl_cov", "kl_cov_coef"): 0.0,
    ("reinforce_pp", "discount"): 1.0,
    ("reinforce_pp", "baseline"): "none",
    ("asymre", "shift"): 0.0,
    ("opmd", "temperature"): 1e3,
    ("opmd", "baseline"): "soft_maximum",
}
ACTING = {
    "best_of_group-several": ("std", "clip_high"),
    "pass_k-several": ("k", "clip_low", "clip_high"),
    "gdpo-weighted": ("reward_weights", "clip_low", "clip_high"),
    "f_grpo-several": ("power", "clip_low", "clip_high"),
    "grpo_lead-several": ("length", "least", "most", "middle", "steepness"),
    "top_entropy-several": ("keep", "clip_low", "clip_high"),
    "clip_cov-several": ("share", "low", "high", "clip_low", "clip_high"),
    "kl_cov-several": ("share", "kl_cov_coef"),
    "reinforce_pp": ("kl_coef",),
    "reinforce_pp-baseline": ("baseline", "discount", "clip_low", "clip_high"),
    "asymre-several": ("shift",),
    "opmd-several": ("temperature",),
    "opmd-mean": ("baseline",),
}
