"""Pass@k training (arXiv:2508.10751): an answer is credited as a member of random subsets of k of its group.

mask of PPO, pi_ref = pi_old, A of a right answer (1 - R)/s, of a wrong one (1 - R - C(m-1, k-1)/C(N-1, k-1))/s, N = tokens

R = 1 - C(m, k)/C(N, k) is the chance that such a subset of N answers, m of them wrong, has a right one, s = sqrt(R (1 - R)).
Wrong answers to questions that are mostly solved cost little, and exploring is not punished. The closed form is recalled,
and holds by enumeration of all subsets.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from posttrain.algorithms.on_rollouts._groups import Clipped, over_groups
from posttrain.settings.base import Count

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class PassK(Clipped):
    """Pass@k training."""

    reads_verdict = True
    reads_rewards = False
    divides = False
    whole_rows = True

    name: Literal["pass_k"] = "pass_k"
    kl_in: Literal["loss"] = "loss"
    """The credit is made of the verdict, from which no KL can be taken."""
    k: Count = 4
    """How many answers have a try."""

    @model_validator(mode="after")
    def _has_enough(self) -> PassK:
        if self.k > self.rollouts:
            raise ValueError(f"k: {self.k} answers of a group of {self.rollouts} cannot be had: set rollout.n to k or more")
        return self

    def build(self) -> Algorithm:
        """The table's row `grpo` with this credit, averaged over tokens."""
        from posttrain.estimator.parts import average, denominator
        from posttrain.estimator.parts.credit import groups

        return over_groups(
            self,
            paper="arXiv:2508.10751",
            ratio=denominator.old,
            mask=self.clip(),
            credit=partial(groups.one_of_k, k=self.k),
            per=average.token,
            metrics=self.native(),
        )
