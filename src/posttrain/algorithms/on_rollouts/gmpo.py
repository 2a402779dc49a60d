"""Geometric-mean policy optimization (arXiv:2507.20673): a row's ratio is the geometric mean of its tokens' bounded ratios.

mask log r of the token in [-0.4, 0.4] on the side of A, ratio (prod_t bounded r_t)^(1/|y|), A = (R - mean)/(std + e) of the
group, N = rows, s = 1/|y|

The bounds are those of log r. The loss was read in TRL's code and verl's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import over_groups
from posttrain.algorithms.options import OnGroups
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class GMPO(OnGroups):
    """Geometric-mean policy optimization."""

    name: Literal["gmpo"] = "gmpo"
    clip_low: NonNegative = 0.4
    """A token of negative advantage leaves the loss where its log-ratio is below -this."""
    clip_high: NonNegative = 0.4
    """A token of positive advantage leaves the loss where its log-ratio is above this."""

    def build(self) -> Algorithm:
        """The mask and the geometric mean have the same bounds."""
        from posttrain.estimator.parts import average, denominator, mask
        from posttrain.estimator.parts.credit import baseline

        bounds = {"low": self.clip_low, "high": self.clip_high}
        return over_groups(
            self,
            paper="arXiv:2507.20673",
            ratio=partial(denominator.old_clipped_mean, **bounds),
            mask=partial(mask.log_clip, **bounds),
            credit=partial(baseline.group_normalised, eps=self.std_eps),
            per=average.sequence_mean,
            scope="sequence",
        )
