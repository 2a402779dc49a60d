"""REINFORCE++ (arXiv:2501.03262): PPO's clip with a return for each token, whitened over the collection, and no critic.

mask of PPO, pi_ref = pi_old, A_t = sum over s >= t of discount^(s - t) r_s, whitened over all tokens, N = tokens

r is -kl_coef · (log pi_old - log pi_start) at each token, and the answer's reward at the last. With `baseline: group_mean`
(the paper's REINFORCE++-baseline) the mean of the group is taken from it first; its KL stays in the return here. Read in
verl's code, whose return starts anew after every token without loss: here such tokens are no steps.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from posttrain.algorithms.on_rollouts._groups import Clip
from posttrain.algorithms.options import KLCoefficient, OnRollouts
from posttrain.settings.base import Share

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class ReinforcePP(Clip, OnRollouts):
    """PPO's clip with whitened returns, and no critic."""

    measures_tokens = True
    whole_rows = True

    name: Literal["reinforce_pp"] = "reinforce_pp"
    kl_coef: KLCoefficient = 0.01
    discount: Share = 1.0
    """What a reward is worth one token earlier."""
    baseline: Literal["none", "group_mean"] = "none"
    """What is taken from the answer's reward before it is returned."""

    @model_validator(mode="after")
    def _has_a_baseline(self) -> ReinforcePP:
        if self.baseline == "group_mean" and self.rollouts < 2:
            raise ValueError("baseline: a group of one has no mean of its own: set rollout.n to 2 or more")
        return self

    def build(self) -> Algorithm:
        """Returns and their whitening are made once, with the collection."""
        from posttrain.algorithms.terms import entropy_penalties, kl_coefficient, needs, policy_term
        from posttrain.estimator import Algorithm
        from posttrain.estimator.parts import average
        from posttrain.estimator.parts.credit import baseline, returns

        to_go = partial(
            returns.returns_to_go,
            discount=self.discount,
            kl_coef=kl_coefficient(self.kl_coef),
            centre=self.baseline == "group_mean",
        )
        return Algorithm(
            name=self.name,
            paper="arXiv:2501.03262",
            needs=needs(self, kl_in_reward=True),
            terms=(policy_term(self, average.token, mask=self.clip(), metrics=self.native()),),
            penalties=entropy_penalties(self.entropy_coef),
            credit=partial(baseline.in_turn, steps=(to_go, returns.whitened)),
        )
