"""Only the best answer of a group is learnt from, by its lead over the second (arXiv:2503.19595).

mask of PPO, pi_ref = pi_old, A of the best = (R_1 - R_2)/(std + e), of all others 0, N = tokens

It is the leave-one-out credit of the group's largest reward: without std its expectation is the gradient of that. Two
that are equally good teach nothing. The credit was read in verl's code.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import Clipped, over_groups

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class BestOfGroup(Clipped):
    """Only the best answer of a group is learnt from."""

    whole_rows = True

    name: Literal["best_of_group"] = "best_of_group"
    std: bool = True
    """The lead is divided by the std of the group's rewards."""

    def build(self) -> Algorithm:
        """The table's row `grpo` with this credit, averaged over tokens."""
        from posttrain.estimator.parts import average, denominator
        from posttrain.estimator.parts.credit import groups

        return over_groups(
            self,
            paper="arXiv:2503.19595",
            ratio=denominator.old,
            mask=self.clip(),
            credit=partial(groups.best_only, std=self.std, eps=self.std_eps),
            per=average.token,
            metrics=self.native(),
        )
