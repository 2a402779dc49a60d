"""Group sequence policy optimization (arXiv:2507.18071): the ratio is the row's geometric mean.

mask of PPO with 3e-4 / 4e-4, ratio (pi(y)/pi_old(y))^(1/|y|), A = (R - mean)/(std + e) of the group, N = rows, s = 1/|y|

With `average: sequence_sum` (s = 1) it is LUSPO (arXiv:2602.05261): a row counts by its tokens.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import Clipped, over_groups
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class GSPO(Clipped):
    """Group sequence policy optimization."""

    name: Literal["gspo"] = "gspo"
    clip_low: NonNegative = 3e-4
    clip_high: NonNegative = 4e-4
    average: Literal["sequence_mean", "sequence_sum"] = "sequence_mean"
    """A row counts as one, or by its tokens (LUSPO)."""

    def build(self) -> Algorithm:
        """The table's row `gspo`."""
        from posttrain.estimator.parts import average, denominator
        from posttrain.estimator.parts.credit import baseline

        return over_groups(
            self,
            paper="arXiv:2507.18071",
            ratio=denominator.old_sequence_mean,
            mask=self.clip(),
            credit=partial(baseline.group_normalised, eps=self.std_eps),
            per={"sequence_mean": average.sequence_mean, "sequence_sum": average.sequence_sum}[self.average],
            scope="sequence",
        )
