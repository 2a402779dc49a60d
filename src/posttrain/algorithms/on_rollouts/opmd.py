"""Online policy mirror descent (arXiv:2501.12599), in the simple form of Trinity-RFT.

mask 1, pi_ref = pi_theta (detached), A = (R - t log mean exp(R/t)) / (1 + t) of the group, t the temperature, N = tokens

There is no ratio, whatever the number of updates: 1 + t holds the step back instead. The baseline is what the group's best
answers are worth, so that few are pushed up and many down; for large t it is the mean, and with `baseline: mean` for every t.
Read in Trinity-RFT's code, which has both, and the mean as its default.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import over_groups
from posttrain.algorithms.options import OnGroups
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class OPMD(OnGroups):
    """A baseline of the best answers, and a small step."""

    divides = False
    whole_rows = True

    name: Literal["opmd"] = "opmd"
    temperature: Positive = 1.0
    """How soft the maximum of the rewards is, and how small the step."""
    baseline: Literal["soft_maximum", "mean"] = "soft_maximum"
    """What is taken from a reward: what the best answers of its group are worth, or all of them."""

    def build(self) -> Algorithm:
        """The plain policy gradient with this baseline."""
        from posttrain.estimator.parts import average, denominator, mask
        from posttrain.estimator.parts.credit import baseline, groups

        credit = {
            "soft_maximum": partial(groups.soft_maximum, temperature=self.temperature),
            "mean": partial(groups.damped, by=self.temperature, credit=baseline.group_mean),
        }[self.baseline]
        return over_groups(
            self,
            paper="arXiv:2501.12599",
            ratio=denominator.current,
            mask=mask.keep,
            credit=credit,
            per=average.token,
        )
