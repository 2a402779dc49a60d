"""Group reward-decoupled normalization (arXiv:2601.05242): each reward is normalised by itself.

mask of PPO, pi_ref = pi_old, A = sum_k w_k (R_k - mean)/(std + e) of the group, whitened over the collection, N = rows,
s = 1/|y|

In a sum of rewards the one of largest spread decides; here each has its say. The whitening is over tokens, as in verl's
code, where it was read.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import Clipped, over_groups

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class GDPO(Clipped):
    """Group reward-decoupled normalization."""

    measures_tokens = True
    whole_rows = True

    name: Literal["gdpo"] = "gdpo"
    kl_in: Literal["loss"] = "loss"
    """The credit is made of each reward by itself, and a KL is of none of them."""
    reward_weights: dict[str, float] | None = None
    """Of each reward by its name. The recipe fills it from `rewards`; all are 1 where it is not set."""

    def build(self) -> Algorithm:
        """The table's row `grpo` with this credit."""
        from posttrain.estimator.parts import average, denominator
        from posttrain.estimator.parts.credit import baseline, groups, returns

        decoupled = partial(groups.decoupled, weights=self.reward_weights, eps=self.std_eps)
        return over_groups(
            self,
            paper="arXiv:2601.05242",
            ratio=denominator.old,
            mask=self.clip(),
            credit=partial(baseline.in_turn, steps=(decoupled, returns.whitened)),
            per=average.sequence_mean,
            metrics=self.native(),
        )
