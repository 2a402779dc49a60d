"""REINFORCE, and RLOO, its leave-one-out baseline.

    REINFORCE (Williams 1992):              mask 1, pi_ref = pi_theta (detached), A = R or R - mean, N = rows
    RLOO (Ahmadian et al. 2024, arXiv:2402.14740): the same with A = R_i - mean(R of the others); with several updates
        the ratio of the whole row, pi(y)/pi_old(y), clipped as in TRL

A row is one action: its log-probs are summed, not averaged (s = 1). kl_coef takes the k1 estimate of KL(pi || start)
out of the reward, as RLOO's paper does.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from posttrain.algorithms.options import GroupSize, OnPolicyConfig
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from collections.abc import Callable

    from posttrain.estimator.algorithm import Algorithm, Mask, Part
    from posttrain.estimator.batch import Batch


class Reinforce(OnPolicyConfig):
    """REINFORCE with one update for each collection."""

    name: Literal["reinforce"] = "reinforce"
    updates: Literal[1] = 1
    baseline: Literal["none", "group_mean"] = "none"

    @model_validator(mode="after")
    def _has_a_baseline(self) -> Reinforce:
        if self.baseline == "group_mean" and self.rollouts < 2:
            raise ValueError("baseline: a group of one has no mean of its own: set rollout.n to 2 or more")
        return self


class RLOO(OnPolicyConfig):
    """REINFORCE leave-one-out."""

    name: Literal["rloo"] = "rloo"
    rollouts: GroupSize = 8
    kl_coef: NonNegative = 0.05
    clip_low: NonNegative = 0.2
    clip_high: NonNegative = 0.2


def build_reinforce(config: Reinforce) -> Algorithm:
    """One action a row, one update."""
    from posttrain.estimator.parts import denominator, mask
    from posttrain.estimator.parts.credit import baseline

    credit = {"none": baseline.reward, "group_mean": baseline.group_mean}[config.baseline]
    return _row_action(config, "Williams 1992", credit, denominator.current, mask.keep)


def build_rloo(config: RLOO) -> Algorithm:
    """The baseline is the mean of the other rollouts of the question."""
    from posttrain.estimator.parts import denominator, mask
    from posttrain.estimator.parts.credit import baseline

    several = config.updates > 1
    ratio = denominator.old_sequence if several else denominator.current
    clip = partial(mask.ppo_clip, low=config.clip_low, high=config.clip_high) if several else mask.keep
    return _row_action(config, "arXiv:2402.14740", baseline.leave_one_out, ratio, clip)


def _row_action(config: Reinforce | RLOO, paper: str, credit: Callable[[Batch], Batch], ratio: Part, mask: Mask) -> Algorithm:
    from posttrain.algorithms.terms import entropy_penalties, less_kl, needs, policy_term
    from posttrain.estimator.algorithm import Algorithm
    from posttrain.estimator.parts import average

    return Algorithm(
        name=config.name,
        paper=paper,
        needs=needs(config, scope="sequence" if config.updates > 1 else "token", kl_in_reward=True),
        terms=(policy_term(config, average.sequence_sum, mask=mask, denominator=ratio),),
        penalties=entropy_penalties(config.entropy_coef),
        credit=less_kl(config.kl_coef, credit),
    )
