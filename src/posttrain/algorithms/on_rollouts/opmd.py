"""Online policy mirror descent (arXiv:2501.12599), in the simple form of Trinity-RFT.

mask 1, pi_ref = pi_theta (detached), A = (R - t log mean exp(R/t)) / (1 + t) of the group, t the temperature, N = tokens

There is no ratio, whatever the number of updates: 1 + t holds the step back instead. The baseline is what the group's best
answers are worth, so that few are pushed up and many down; for large t it is the mean. Read in Trinity-RFT's code, where it
is one of two baselines, and the mean the default.
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

    name: Literal["opmd"] = "opmd"
    temperature: Positive = 1.0
    """How soft the maximum of the rewards is, and how small the step."""

    def build(self) -> Algorithm:
        """The plain policy gradient with this baseline."""
        from posttrain.estimator.parts import average, denominator, mask
        from posttrain.estimator.parts.credit import groups

        return over_groups(
            self,
            paper="arXiv:2501.12599",
            ratio=denominator.current,
            mask=mask.keep,
            credit=partial(groups.soft_maximum, temperature=self.temperature),
            per=average.token,
        )
