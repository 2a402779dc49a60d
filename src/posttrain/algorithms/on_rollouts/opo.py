"""On-policy optimization with the optimal baseline (arXiv:2505.23585).

mask 1, pi_ref = pi_theta (detached), A_i = R_i - sum_j |y_j| R_j / sum_j |y_j| of the group, N = tokens

Exactly on policy: one update for each collection, no clip, no std. The baseline was read in verl's code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import over_groups
from posttrain.algorithms.options import OnGroups

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class OPO(OnGroups):
    """On-policy optimization with the optimal baseline."""

    divides = False
    whole_rows = True

    name: Literal["opo"] = "opo"
    updates: Literal[1] = 1

    def build(self) -> Algorithm:
        """The baseline weighs rewards by the lengths of their answers."""
        from posttrain.estimator.parts import average, denominator, mask
        from posttrain.estimator.parts.credit import groups

        return over_groups(
            self,
            paper="arXiv:2505.23585",
            ratio=denominator.current,
            mask=mask.keep,
            credit=groups.length_weighted,
            per=average.token,
        )
