"""The rows that naive losses see, without padding or masks, and what several of these losses are made of.

Nothing of `posttrain.estimator.parts` is used here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cases import Sample

INFINITY = float("inf")


@dataclass
class Row:
    """One completion without its padding: n tokens, all of which carry loss."""

    tokens: list[int]
    logp: Tensor
    old: Tensor
    ref: Tensor
    behavior: Tensor
    sampled: Tensor
    policy: Tensor
    reference: Tensor
    teacher: Tensor
    taught: Tensor
    group: int
    reward: float
    rewards: dict[str, float]
    entropy: Tensor
    correct: bool
    shown: bool
    """It is a demonstration."""
    weight: Tensor
    anchor: float
    collision: Tensor
    baseline: float
    beside: bool
    """Its teacher is shown another right answer."""

    def __len__(self) -> int:
        return len(self.logp)


def read(drawn: Sample, logits: Tensor) -> list[Row]:
    """The rows of a batch, with the current policy's log-probs as functions of the logits."""
    batch, rows = drawn.batch, []
    for i, keep in enumerate(batch.loss_mask):
        tokens = drawn.tokens[i][keep]
        models = (logits, drawn.ref_logits, drawn.teacher_logits)
        policy, reference, teacher = (x[i][keep].log_softmax(-1) for x in models)
        logp, ref, taught = (x[range(len(tokens)), tokens] for x in (policy, reference, teacher))
        rows.append(
            Row(
                tokens=tokens.tolist(),
                logp=logp,
                old=logp.detach() if batch.old_logp is None else batch.old_logp[i][keep],
                ref=ref,
                behavior=logp.detach() if batch.behavior_logp is None else batch.behavior_logp[i][keep],
                sampled=batch.origin[i][keep] == 0,
                policy=policy,
                reference=reference,
                teacher=teacher,
                taught=taught,
                group=int(batch.group[i]),
                reward=0.0 if batch.reward is None else float(batch.reward[i]),
                rewards={name: float(values[i]) for name, values in batch.rewards_by_name.items()},
                entropy=logp.detach() if batch.entropy is None else batch.entropy[i][keep],
                correct=batch.correct is not None and bool(batch.correct[i]),
                shown=drawn.algorithm.needs.demonstration in ("row", "separate") and bool(batch.origin[i, 0] == 1),
                beside=batch.taught is not None and bool(batch.taught[i]),
                baseline=0.0 if batch.baseline is None else float(batch.baseline[i]),
                anchor=0.0 if batch.anchor is None else float(batch.anchor[i]),
                collision=torch.logsumexp(2 * policy.detach(), -1),
                weight=torch.ones_like(ref) if batch.weight is None else batch.weight[i][keep],
            )
        )
    return rows


# --- averages and advantages -----------------------------------------------------------------------------------------


def token_mean(rows: list[Row], losses: list[Tensor]) -> Tensor:
    return torch.cat(losses).sum() / sum(len(row) for row in rows)


def row_mean(rows: list[Row], losses: list[Tensor]) -> Tensor:
    """Mean over rows, those without a token apart, of one number for each row."""
    return torch.stack([loss for row, loss in zip(rows, losses, strict=True) if len(row)]).mean()


def others(rows: list[Row], row: Row, *, leave_out: bool = False) -> list[float]:
    return [other.reward for other in rows if other.group == row.group and not (leave_out and other is row)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def deviation(values: list[float]) -> float:
    """The unbiased one; 0 of one value."""
    if len(values) < 2:
        return 0.0
    return math.sqrt(sum((value - mean(values)) ** 2 for value in values) / (len(values) - 1))


def centred(rows: list[Row]) -> list[float]:
    """R - mean(R of the group)."""
    return [row.reward - mean(others(rows, row)) for row in rows]


def normalised(rows: list[Row]) -> list[float]:
    """(R - mean) / std of the group (arXiv:2402.03300, section 4.1.2), with the 1e-4 of TRL and verl."""
    return [(row.reward - mean(others(rows, row))) / (deviation(others(rows, row)) + 1e-4) for row in rows]


def leave_one_out(rows: list[Row]) -> list[float]:
    """R - mean(R of the others) (arXiv:2402.14740, eq. 8)."""
    return [row.reward - mean(others(rows, row, leave_out=True)) for row in rows]


# --- what policy gradients share ---------------------------------------------------------------------------------------


def clipped(row: Row, log_ratio: Tensor, advantage: float, low: float, high: float, dual: float | None = None) -> Tensor:
    """min(r A, clip(r, 1 - low, 1 + high) A) (arXiv:1707.06347, eq. 7); bounded below by dual · A where A < 0
    (arXiv:1912.09729, eq. 5)."""
    ratio = log_ratio.exp()
    value = torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
    return value if dual is None or advantage >= 0 else value.clamp(min=dual * advantage)


def corrected(row: Row, correction: dict[str, Any] | None) -> Tensor | float:
    """pi_old / pi_behavior, detached: truncated at a cap C (TIS; arXiv:1802.01561, eq. 1, and Yao et al. 2025), or
    dropped outside [1/C, C] (MIS); of the token, of the whole row, or its geometric mean over the row."""
    if correction is None:
        return 1.0
    gap = torch.where(row.sampled, row.old - row.behavior, 0.0)
    level = {"token": gap, "sequence": gap.sum(), "geometric": gap.mean()}[correction["level"]]
    weight, cap = level.exp().expand(len(row)), correction["cap"]
    inside = (weight >= 1 / cap) & (weight <= cap)
    weight = weight.clamp(max=cap) if correction["form"] == "truncate" else torch.where(inside, weight, 0.0)
    return torch.where(row.sampled, weight, 1.0)


def divergence(row: Row, kl: str) -> Tensor:
    """Estimates of KL(pi || ref), differentiated as they stand: k3 of arXiv:2402.03300, eq. 4; k2 of Schulman 2020; k3 times
    the ratio to pi_old, of DeepSeek-V3.2 (arXiv:2512.02556)."""
    gap = row.ref - row.logp
    k3 = gap.exp() - gap - 1
    return {"k2": gap**2 / 2, "k3": k3, "unbiased": (row.logp - row.old).exp() * k3}[kl]


def staleness(row: Row) -> float:
    """The mean of log mu - log pi over the row, mu its sampler (arXiv:2512.02556)."""
    gap = torch.where(row.sampled, row.behavior - row.logp.detach(), 0.0)
    return float(gap.mean()) if len(row) else 0.0


def entropy_bonus(rows: list[Row], coef: float) -> Tensor | float:
    """-coef · mean entropy over tokens (arXiv:1707.06347, eq. 9)."""
    return coef * token_mean(rows, [(row.policy.exp() * row.policy).sum(-1) for row in rows]) if coef else 0.0


def shaped(rows: list[Row], kl_coef: float) -> list[Row]:
    """Rewards less coef · log(pi_old(y)/pi_ref(y)) of the collecting policy (arXiv:2402.14740, section 2)."""
    for row in rows:
        row.reward -= kl_coef * float((row.old - row.ref).sum())
    return rows
