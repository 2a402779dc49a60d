"""Variational sequence-level soft policy optimization (arXiv:2602.10693): a row's ratio is shaped, and never cut.

mask 1, ratio w^k exp(decay (1 - w)) with w = pi(y)/pi_old(y), k and the decay by the sign of A, A = (R - mean)/(std + e) of
the group, N = tokens

The weight is 1 at w = 1 and largest at w = k / decay. Constants and formula were read in TRL's code.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import over_groups
from posttrain.algorithms.options import OnGroups
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class VESPO(OnGroups):
    """Variational sequence-level soft policy optimization."""

    name: Literal["vespo"] = "vespo"
    correction: None = None
    """The sampler's gap would have to be in the ratio before it is shaped: `old: sampler` has it there."""
    positive_power: Positive = 2.0
    """k of rows whose advantage is not negative."""
    positive_decay: Positive = 3.0
    """Their decay."""
    negative_power: Positive = 3.0
    """k of rows of negative advantage."""
    negative_decay: Positive = 2.0
    """Their decay."""

    def build(self) -> Algorithm:
        """The shape is the ratio's."""
        from posttrain.estimator.parts import average, denominator, mask
        from posttrain.estimator.parts.credit import baseline

        shape = partial(
            denominator.gamma_shaped,
            positive_power=self.positive_power,
            positive_decay=self.positive_decay,
            negative_power=self.negative_power,
            negative_decay=self.negative_decay,
        )
        return over_groups(
            self,
            paper="arXiv:2602.10693",
            ratio=shape,
            mask=mask.keep,
            credit=partial(baseline.group_normalised, eps=self.std_eps),
            per=average.token,
            scope="sequence",
        )
