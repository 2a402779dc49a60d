"""Dr. GRPO (arXiv:2503.20783): GRPO done right, without division by std or length.

mask of PPO, pi_ref = pi_old, A = R - mean of the group, N = rows × max_tokens
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import Clipped, over_groups
from posttrain.settings.base import Count

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class DrGRPO(Clipped):
    """GRPO done right: no division by std or length."""

    divides = False

    name: Literal["dr_grpo"] = "dr_grpo"
    max_tokens: Count
    """The constant length in N. The recipe fills it from `rollout.max_tokens`."""

    def build(self) -> Algorithm:
        """The table's row `dr_grpo`."""
        from posttrain.estimator.parts import average, denominator
        from posttrain.estimator.parts.credit import baseline

        return over_groups(
            self,
            paper="arXiv:2503.20783",
            ratio=denominator.old,
            mask=self.clip(),
            credit=baseline.group_mean,
            per=average.constant(self.max_tokens),
            metrics=self.native(),
        )
