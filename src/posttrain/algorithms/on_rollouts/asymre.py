"""Asymmetric REINFORCE (arXiv:2506.20520): a baseline below the mean, so that right answers count more than wrong ones.

mask 1, pi_ref = pi_theta (detached), A = R - (mean of the group - shift), N = tokens

There is no ratio, whatever the number of updates: on samples of an older policy wrong answers say little, and a lower
baseline trusts them less. Read in Trinity-RFT's code.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import over_groups
from posttrain.algorithms.options import OnGroups
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class AsymRE(OnGroups):
    """A baseline below the mean."""

    divides = False
    whole_rows = True

    name: Literal["asymre"] = "asymre"
    shift: NonNegative = 0.1
    """How far the baseline stands below the group's mean reward."""

    def build(self) -> Algorithm:
        """The plain policy gradient with this baseline."""
        from posttrain.estimator.parts import average, denominator, mask
        from posttrain.estimator.parts.credit import baseline

        return over_groups(
            self,
            paper="arXiv:2506.20520",
            ratio=denominator.current,
            mask=mask.keep,
            credit=partial(baseline.group_mean, shift=self.shift) if self.shift else baseline.group_mean,
            per=average.token,
        )
