"""REINFORCE (Williams 1992): the plain policy gradient.

mask 1, pi_ref = pi_theta (detached), A = R or R - mean, N = rows, s = 1

With `correction: {level: sequence, cap: 2}` it is off-policy REINFORCE: the weight of a row is min(pi(y)/pi_sampler(y), 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from posttrain.algorithms.on_rollouts._row_action import row_action
from posttrain.algorithms.options import OnRollouts

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class Reinforce(OnRollouts):
    """REINFORCE with one update for each collection."""

    name: Literal["reinforce"] = "reinforce"
    updates: Literal[1] = 1
    baseline: Literal["none", "group_mean"] = "none"
    """What is taken from the reward: nothing, or the mean of the group."""

    @model_validator(mode="after")
    def _has_a_baseline(self) -> Reinforce:
        if self.baseline == "group_mean" and self.rollouts < 2:
            raise ValueError("baseline: a group of one has no mean of its own: set rollout.n to 2 or more")
        return self

    def build(self) -> Algorithm:
        """One action a row, one update."""
        from posttrain.estimator.parts import denominator, mask
        from posttrain.estimator.parts.credit import baseline

        credit = {"none": baseline.reward, "group_mean": baseline.group_mean}[self.baseline]
        return row_action(self, "Williams 1992", credit=credit, ratio=denominator.current, mask=mask.keep)
