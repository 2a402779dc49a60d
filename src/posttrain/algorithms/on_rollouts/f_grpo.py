"""Focal weighting (F-GRPO, arXiv:2602.06717): questions that are mostly solved count less.

mask of PPO, pi_ref = pi_old, A = (1 - p)^power (R - mean)/(std + e) of the group, p its share of right answers, N = rows,
s = 1/|y|

The weight was read in reviews that quote the paper, which puts it on GRPO, DAPO and CISPO alike; it is on GRPO here. The
default power is ours.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import Clipped, over_groups
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class FGRPO(Clipped):
    """GRPO that forgets what is solved."""

    reads_verdict = True
    whole_rows = True

    name: Literal["f_grpo"] = "f_grpo"
    power: NonNegative = 1.0
    """How fast a question's weight falls with its share of right answers."""

    def build(self) -> Algorithm:
        """The table's row `grpo` with this weight."""
        from posttrain.estimator.parts import average, denominator
        from posttrain.estimator.parts.credit import baseline, groups

        plain = partial(baseline.group_normalised, eps=self.std_eps)
        return over_groups(
            self,
            paper="arXiv:2602.06717",
            ratio=denominator.old,
            mask=self.clip(),
            credit=partial(groups.focal, power=self.power, credit=plain),
            per=average.sequence_mean,
            metrics=self.native(),
        )
