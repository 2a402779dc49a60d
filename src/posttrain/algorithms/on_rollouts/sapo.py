"""Soft adaptive policy optimization (arXiv:2511.20347): a gate that fades, where PPO's clip cuts.

mask 1, ratio 4 g (1 - g) r with g = sigmoid(tau (r - 1)), tau by the sign of A, A = (R - mean)/(std + e) of the group,
N = rows, s = 1/|y|

The objective is 4/tau · g · A. The loss was read in TRL's code and verl's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import over_groups
from posttrain.algorithms.options import OnGroups
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class SAPO(OnGroups):
    """Soft adaptive policy optimization."""

    name: Literal["sapo"] = "sapo"
    temperature_positive: Positive = 1.0
    """How fast a token of positive advantage fades as its ratio leaves 1; towards 0 it does not."""
    temperature_negative: Positive = 1.05
    """The same for tokens of other advantages: faster, for they raise many tokens that were never sampled."""

    def build(self) -> Algorithm:
        """No mask: the gate is the ratio's."""
        from posttrain.estimator.parts import average, denominator, mask
        from posttrain.estimator.parts.credit import baseline

        gate = partial(denominator.soft_gate, positive=self.temperature_positive, negative=self.temperature_negative)
        return over_groups(
            self,
            paper="arXiv:2511.20347",
            ratio=gate,
            mask=mask.keep,
            credit=partial(baseline.group_normalised, eps=self.std_eps),
            per=average.sequence_mean,
        )
