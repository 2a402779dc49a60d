"""ReMax (arXiv:2310.10505): REINFORCE whose baseline is the reward of the question's greedy answer.

    mask 1, pi_ref = pi_theta (detached), A = R - R(the most probable answer), N = rows, s = 1

One answer a question is enough. The greedy one is sampled and judged beside it, and is no row: it is in no loss, no group and
no mean of rewards. It is the answer that takes the most probable token each time. The baseline is read in verl's and
Trinity-RFT's code; these take a KL out of what is left of each token's reward, which is here the whole row's.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from posttrain.algorithms.on_rollouts._row_action import row_action
from posttrain.algorithms.options import OnRollouts
from posttrain.settings.base import Count

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class ReMax(OnRollouts):
    """REINFORCE with the greedy answer as baseline."""

    beside_rollouts: ClassVar[bool] = True

    name: Literal["remax"] = "remax"
    rollouts: Count = 1
    updates: Literal[1] = 1

    def build(self) -> Algorithm:
        """One action a row; the plan asks for a greedy answer too."""
        from posttrain.estimator.parts import denominator, mask, plan
        from posttrain.estimator.parts.credit import baseline

        sampled = row_action(
            self, "arXiv:2310.10505", credit=baseline.over_baseline, ratio=denominator.current, mask=mask.keep
        )
        needs = dataclasses.replace(sampled.needs, baseline="greedy")
        return dataclasses.replace(sampled, needs=needs, planner=plan.beside_greedy)
