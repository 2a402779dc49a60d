"""Which of a group's rows are learnt from, by how many of its rollouts are right: `Batch -> Batch`, in `prepare`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posttrain.estimator.batch import Batch
from posttrain.estimator.parts.credit.grouping import graded_rewards, group_sum
from posttrain.estimator.parts.select import demonstrated_rows


def solved_gate(batch: Batch, *, gate: int) -> Batch:
    """Keeps a group's rollouts where more than `gate` of them are right, else its demonstration (arXiv:2509.04419, alg. 1).

    (alpha, beta) = (1, 0) if #right > gate else (0, 1)

    The others' loss mask is cleared, and so they are in no N. A group without a demonstration keeps its rollouts; one of
    which no rollout was graded keeps neither, for nothing is known of it.

    Raises:
        ValueError: the batch has no verdicts.
    """
    known, right = _solved(batch)
    return _kept(batch, torch.where(demonstrated_rows(batch), (right <= gate) & known, right > gate))


def mixed_gate(batch: Batch, *, gate: int, gate_off: int) -> Batch:
    """`solved_gate` with `gate_off`; demonstrations of groups with more than `gate` right rollouts are marked, and their
    advantage is their reward: they are learnt by off-policy RL, and not by SFT.
    """
    _, right = _solved(batch)
    rewards, _ = graded_rewards(batch)
    marked = (demonstrated_rows(batch) & (right > gate))[:, None].expand(batch.loss_mask.shape)
    learnt = torch.where(marked, rewards[:, None], _advantage(batch))
    return solved_gate(batch.replace(advantage=learnt, mark=marked), gate=gate_off)


def soft_gate(batch: Batch, *, coefficients: Sequence[tuple[float, float]]) -> Batch:
    """(alpha, beta) by the number of right rollouts: a group's advantages times alpha, and beta as its demonstration's.

    What has 0 leaves the loss mask, so that a table of (0, 1) and (1, 0) is `solved_gate`. A group without a demonstration
    has alpha 1; of one of which no rollout was graded nothing is known, and nothing is kept.

    Raises:
        ValueError: the batch has no verdicts.
    """
    known, right = _solved(batch)
    table = torch.tensor([*coefficients, (1.0, 0.0)], dtype=torch.float64, device=right.device)  # the last: without one
    alpha, beta = table[right.clamp(max=len(coefficients)).long()].unbind(-1)
    demonstrated = demonstrated_rows(batch)
    scale = torch.where(demonstrated, beta * known, alpha)[:, None]
    advantage = _advantage(batch)
    weighed = torch.where(demonstrated[:, None], 1.0, advantage.double()) * scale
    return _kept(batch.replace(advantage=weighed.to(advantage.dtype)), scale[:, 0] > 0)


def _solved(batch: Batch) -> tuple[Bool[Tensor, " B"], Float[Tensor, " B"]]:
    """On every row, whether a rollout of its group was graded, and how many are right: infinitely many in a group without a
    demonstration.
    """
    if batch.correct is None:
        raise ValueError("A gate counts right rollouts: set Batch.correct, by a reward with verdict: true.")
    demonstrated = demonstrated_rows(batch)
    graded = torch.ones_like(demonstrated) if batch.reward_mask is None else batch.reward_mask
    judged = graded & ~demonstrated

    def count(rows: Tensor) -> Tensor:
        return group_sum(rows.double(), batch.group)

    has_demonstration = count(demonstrated & batch.loss_mask.any(-1)) > 0
    right = torch.where(has_demonstration, count(judged & batch.correct), torch.inf)
    return count(judged) > 0, right


def _kept(batch: Batch, rows: Bool[Tensor, " B"]) -> Batch:
    return batch.replace(loss_mask=batch.loss_mask & rows[:, None])


def _advantage(batch: Batch) -> Float[Tensor, "B T"]:
    assert batch.advantage is not None, "the credit of rollouts comes first"
    return batch.advantage
