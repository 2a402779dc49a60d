"""From rewards and groups to advantages: `Batch -> Batch`, run once on the whole collection, before any forward pass.

Rows whose `reward_mask` is False are in no baseline, and their own advantage does not matter: their loss mask is cleared.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from posttrain.estimator.batch import Batch
from posttrain.estimator.parts.coefficient import Coefficient, coefficient_at
from posttrain.estimator.parts.credit.grouping import centred, graded_rewards, group_std, group_sum, spread, varying
from posttrain.estimator.parts.select import demonstrated_rows

STD_EPS = 1e-4  # keeps a group of nearly equal rewards from dividing by nothing; the value of TRL and verl


def as_given(batch: Batch) -> Batch:
    """No credit to assign: the estimator needs no rewards, or the advantages are there."""
    return batch


def reward(batch: Batch) -> Batch:
    """A = R: no baseline (Williams 1992)."""
    rewards, _ = graded_rewards(batch)
    return spread(batch, rewards)


def above(batch: Batch, *, level: float) -> Batch:
    """A_i = R_i - level: one baseline for all rows."""
    rewards, _ = graded_rewards(batch)
    return spread(batch, rewards - level)


def over_baseline(batch: Batch) -> Batch:
    """A_i = R_i - Batch.baseline, what an answer to its question is worth.

    Raises:
        ValueError: the batch has none.
    """
    if batch.baseline is None:
        raise ValueError("Rewards are compared with what a question is worth: set Batch.baseline.")
    rewards, _ = graded_rewards(batch)
    return spread(batch, rewards - batch.baseline)


def group_mean(batch: Batch, *, shift: float = 0.0) -> Batch:
    """A_i = R_i - mean(R of its group) + shift."""
    rewards, graded = graded_rewards(batch)
    return spread(batch, centred(rewards, batch.group, graded) + shift)


def group_normalised(batch: Batch, *, eps: float = STD_EPS) -> Batch:
    """A_i = (R_i - mean) / (std + eps) in its group, with the unbiased std; 0 in a group of one.

    arXiv:2402.03300, section 4.1.2.
    """
    rewards, graded = graded_rewards(batch)
    gaps = centred(rewards, batch.group, graded)
    return spread(batch, gaps / (group_std(gaps, batch.group, graded) + eps))


def leave_one_out(batch: Batch) -> Batch:
    """A_i = R_i - mean(R of the others in its group); 0 in a group of one (arXiv:2402.14740, eq. 8)."""
    rewards, graded = graded_rewards(batch)
    size = group_sum(graded.to(rewards.dtype), batch.group)
    gaps = centred(rewards, batch.group, graded)
    return spread(batch, gaps * size / (size - 1).clamp(min=1))


def varying_groups_normalised(batch: Batch, *, eps: float = STD_EPS) -> Batch:
    """`group_normalised`, and groups whose graded rewards are all equal leave the loss mask, and so N: dynamic sampling
    (DAPO, arXiv:2503.14476, eq. 11).
    """
    kept = batch.loss_mask & varying(batch)[:, None]
    return group_normalised(batch, eps=eps).replace(loss_mask=kept)


def over_varying_groups(batch: Batch, *, credit: Callable[[Batch], Batch]) -> Batch:
    """The credit times rows / rows in groups whose rewards vary: what groups without a signal take away from a mean over all
    (GPG, arXiv:2504.02546).
    """
    _, graded = graded_rewards(batch)
    rows, taught = graded.sum(), (graded & varying(batch)).sum()
    credited = credit(batch)
    assert credited.advantage is not None
    return credited.replace(advantage=credited.advantage * (rows.to(credited.advantage.dtype) / taught.clamp(min=1)))


def of_rollouts(batch: Batch, *, credit: Callable[[Batch], Batch]) -> Batch:
    """The credit of sampled rows: a demonstration is in no baseline, and gets no advantage."""
    sampled = ~demonstrated_rows(batch)
    graded = sampled if batch.reward_mask is None else sampled & batch.reward_mask
    credited = credit(batch.replace(reward_mask=graded)).replace(reward_mask=batch.reward_mask)
    advantage = credited.advantage
    assert advantage is not None
    return credited.replace(advantage=torch.where(sampled[:, None], advantage, 0.0))


def in_turn(batch: Batch, *, steps: tuple[Callable[[Batch], Batch], ...]) -> Batch:
    """One after the other."""
    for step in steps:
        batch = step(batch)
    return batch


def less_kl(batch: Batch, *, coef: Coefficient) -> Batch:
    """R_i - coef · sum_t (logp_t - ref_logp_t): the k1 estimate in the reward, of the collecting policy."""
    collected = batch.old_logp if batch.old_logp is not None else batch.behavior_logp
    if collected is None or batch.ref_logp is None:
        raise ValueError("A KL penalty in the reward needs Batch.ref_logp and Batch.old_logp (or behavior_logp).")
    rewards, _ = graded_rewards(batch)
    gap = torch.where(batch.loss_mask, collected - batch.ref_logp, 0.0).sum(-1)
    return batch.replace(reward=rewards - coefficient_at(coef, batch) * gap)
