"""CISPO (arXiv:2506.13585, eq. 4-5): clipped importance weights instead of dropped tokens.

mask 1, ratio min(r, 1 + clip_high) as a weight, A = (R - mean)/(std + e) of the group, N = tokens
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import over_groups
from posttrain.algorithms.options import OnGroups
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class CISPO(OnGroups):
    """Clipped importance weights instead of dropped tokens."""

    name: Literal["cispo"] = "cispo"
    clip_high: NonNegative = 4.0
    """The weight is min(r, 1 + clip_high); the paper tunes it and prints no value. TRL's epsilon_high is 1 + this."""

    def build(self) -> Algorithm:
        """The table's row `cispo`."""
        from posttrain.estimator.parts import average, denominator, mask
        from posttrain.estimator.parts.credit import baseline

        return over_groups(
            self,
            paper="arXiv:2506.13585",
            ratio=partial(denominator.old_capped, high=self.clip_high),
            mask=mask.keep,
            credit=partial(baseline.group_normalised, eps=self.std_eps),
            per=average.token,
        )
