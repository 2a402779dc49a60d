"""Other baselines and weights of a question's group than its mean and std: `Batch -> Batch`, in `prepare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.batch import Batch
from posttrain.estimator.parts.credit.baseline import group_normalised
from posttrain.estimator.parts.credit.grouping import (
    centred,
    graded_rewards,
    group_max,
    group_std,
    group_sum,
    mean_of,
    spread,
)


def length_weighted(batch: Batch) -> Batch:
    """A_i = R_i - sum_j |y_j| R_j / sum_j |y_j| over its group: the baseline of least variance where a gradient's size grows
    with its tokens (OPO, arXiv:2505.23585).
    """
    rewards, graded = graded_rewards(batch)
    gaps = centred(rewards, batch.group, graded)
    tokens = batch.loss_mask.sum(-1) * graded.to(gaps.dtype)
    return spread(batch, gaps - group_sum(tokens * gaps, batch.group) / group_sum(tokens, batch.group).clamp(min=1))


def soft_maximum(batch: Batch, *, temperature: float) -> Batch:
    """A_i = (R_i - t log mean_j exp(R_j / t)) / (1 + t) over its group, t the temperature: the baseline is the largest reward
    towards t = 0 and the mean for large t (OPMD, arXiv:2501.12599).
    """
    rewards, graded = graded_rewards(batch)
    below = torch.where(graded, rewards - group_max(rewards, batch.group, graded), 0.0)
    soft = temperature * mean_of((below / temperature).exp(), batch.group, graded).log()
    return spread(batch, torch.where(graded, below - soft, 0.0) / (1 + temperature))


def damped(batch: Batch, *, by: float, credit: Callable[[Batch], Batch]) -> Batch:
    """A credit / (1 + by): a step that is held back, whatever the ratio."""
    credited = credit(batch)
    return credited.replace(advantage=_advantage(credited) / (1 + by))


def best_only(batch: Batch, *, std: bool, eps: float) -> Batch:
    """The best row of a group gets its lead over the second, divided by the group's std + eps where `std`; all others, and
    two that are equally good, get 0 (arXiv:2503.19595).
    """
    rewards, graded = graded_rewards(batch)
    gaps = centred(rewards, batch.group, graded)
    best = graded & (gaps == group_max(gaps, batch.group, graded))
    second = group_max(gaps, batch.group, graded & ~best)
    alone = best & (group_sum(best.double(), batch.group) == 1) & second.isfinite()
    lead = torch.where(alone, gaps - second, 0.0)
    return spread(batch, lead / (group_std(gaps, batch.group, graded) + eps) if std else lead)


def one_of_k(batch: Batch, *, k: int) -> Batch:
    """The advantage of an answer in a random subset of k of its group, of which one must be right (arXiv:2508.10751).

        pass@k = 1 - C(m, k) / C(N, k) for m wrong answers of N,   s = sqrt(pass@k (1 - pass@k))
        A of a right answer = (1 - pass@k) / s,   of a wrong one = (1 - pass@k - C(m - 1, k - 1) / C(N - 1, k - 1)) / s

    0 where s is 0, and in a group of fewer than k graded rows.
    """
    right, graded = _verdicts(batch)
    rows, wrong = (group_sum(flags.double(), batch.group) for flags in (graded, graded & ~right))
    factors = [((wrong - j).clamp(min=0) / (rows - j).clamp(min=1)) for j in range(k)]
    missed = torch.stack(factors).prod(0)
    with_it = torch.stack(factors[1:]).prod(0) if k > 1 else torch.ones_like(missed)
    spread_of_k = (missed * (1 - missed)).sqrt()
    gain = torch.where(right, missed, missed - with_it) / torch.where(spread_of_k > 0, spread_of_k, 1.0)
    known = graded & (spread_of_k > 0) & (rows >= k)
    return spread(batch, torch.where(known, gain, 0.0).to(_dtype(batch)))


def decoupled(batch: Batch, *, weights: Mapping[str, float] | None, eps: float) -> Batch:
    """Each reward normalised in its group by itself, then their sum by `weights`, 1 each if not given (GDPO,
    arXiv:2601.05242). A batch without rewards by name has one, and it needs no weight.

    Raises:
        ValueError: the weights are of other rewards than the batch's.
    """
    by_name = batch.rewards_by_name
    if not by_name:
        return group_normalised(batch, eps=eps)
    weights = dict.fromkeys(by_name, 1.0) if weights is None else weights
    if weights.keys() != by_name.keys():
        raise ValueError(f"reward_weights: they are of {', '.join(weights)}, and the rewards are {', '.join(by_name)}.")
    parts = [
        weights[name] * _advantage(group_normalised(batch.replace(reward=one), eps=eps)) for name, one in by_name.items()
    ]
    return batch.replace(advantage=torch.stack(parts).sum(0))


def focal(batch: Batch, *, power: float, credit: Callable[[Batch], Batch]) -> Batch:
    """A credit times (1 - share of right answers in the group)^power (F-GRPO, arXiv:2602.06717)."""
    scale = (1 - _share_right(batch)) ** power
    return _scaled(credit(batch), scale)


def short_and_right(batch: Batch, *, length: float) -> Batch:
    """The reward exp(-length · z) for right answers and -1 for wrong ones, z how long an answer is among the right ones of
    its group, in standard deviations (GRPO-LEAD, arXiv:2504.09696).
    """
    right, graded = _verdicts(batch)
    counted = right & graded
    tokens = batch.loss_mask.sum(-1).to(_dtype(batch))
    gaps = torch.where(counted, tokens - mean_of(tokens, batch.group, counted), 0.0)
    z = gaps / (group_std(gaps, batch.group, counted) + 1e-6)
    return batch.replace(reward=torch.where(right, (-length * z).exp(), -1.0))


def by_difficulty(batch: Batch, *, least: float, most: float, middle: float, steepness: float) -> Batch:
    """A · w(p) where A > 0, else A · w(1 - p), p the share of right answers in the group and
    w(p) = least + (most - least) / (1 + exp(steepness (p - middle))) (GRPO-LEAD, arXiv:2504.09696).
    """
    share = _share_right(batch)[:, None]
    at = torch.where(_advantage(batch) > 0, share, 1 - share)
    weight = least + (most - least) * torch.sigmoid(-steepness * (at - middle))
    return batch.replace(advantage=_advantage(batch) * weight)


def _verdicts(batch: Batch) -> tuple[Tensor, Tensor]:
    if batch.correct is None:
        raise ValueError("The algorithm asks which rollouts are right: set Batch.correct, by a reward with verdict: true.")
    _, graded = graded_rewards(batch)
    return batch.correct, graded


def _share_right(batch: Batch) -> Float[Tensor, " B"]:
    right, graded = _verdicts(batch)
    return mean_of(right.to(_dtype(batch)), batch.group, graded)


def _advantage(batch: Batch) -> Float[Tensor, "B T"]:
    assert batch.advantage is not None
    return batch.advantage


def _scaled(batch: Batch, scale: Float[Tensor, " B"]) -> Batch:
    return batch.replace(advantage=_advantage(batch) * scale[:, None])


def _dtype(batch: Batch) -> torch.dtype:
    assert batch.reward is not None
    return batch.reward.dtype
