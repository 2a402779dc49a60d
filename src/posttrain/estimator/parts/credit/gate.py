"""Which of a group's rows are learnt from, by how many of its rollouts are right: `Batch -> Batch`, in `prepare`."""

from __future__ import annotations

import torch

from posttrain.estimator.batch import Batch
from posttrain.estimator.parts.credit.grouping import group_sum
from posttrain.estimator.parts.select import demonstrated_rows


def solved_gate(batch: Batch, *, gate: int) -> Batch:
    """Keeps a group's rollouts where more than `gate` of them are right, else its demonstration (arXiv:2509.04419, alg. 1).

    (alpha, beta) = (1, 0) if #right > gate else (0, 1)

    The others' loss mask is cleared, and so they are in no N. A group without a demonstration keeps its rollouts; one of
    which no rollout was graded keeps neither, for nothing is known of it.

    Raises:
        ValueError: the batch has no verdicts.
    """
    if batch.correct is None:
        raise ValueError("A gate counts right rollouts: set Batch.correct, by a reward with verdict: true.")
    demonstrated = demonstrated_rows(batch)
    graded = torch.ones_like(demonstrated) if batch.reward_mask is None else batch.reward_mask
    judged = graded & ~demonstrated

    def count(rows: torch.Tensor) -> torch.Tensor:
        return group_sum(rows.double(), batch.group)

    has_demonstration = count(demonstrated & batch.loss_mask.any(-1)) > 0
    imitates = has_demonstration & (count(judged & batch.correct) <= gate)
    kept = torch.where(demonstrated, imitates & (count(judged) > 0), ~imitates)
    return batch.replace(loss_mask=batch.loss_mask & kept[:, None])
