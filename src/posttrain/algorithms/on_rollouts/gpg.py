"""Group policy gradient (arXiv:2504.02546): the plain policy gradient, scaled up for groups that teach nothing.

mask 1, pi_ref = pi_theta (detached), A = (R - mean of the group) · B / B', N = tokens

B are the collection's rows, B' those in groups whose rewards vary. verl counts rows whose reward is not 0 instead; the
paper groups with a signal, as here. `std` divides by the group's std, the paper's other F_norm.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._groups import over_groups
from posttrain.algorithms.options import OnGroups

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class GPG(OnGroups):
    """Group policy gradient."""

    whole_rows = True

    name: Literal["gpg"] = "gpg"
    updates: Literal[1] = 1
    kl_in: Literal["loss"] = "loss"
    """With a KL taken from rewards every group would seem to have a signal."""
    std: bool = False
    """Advantages are divided by the std of the group's rewards."""

    def build(self) -> Algorithm:
        """No ratio and no clip: one update for each collection."""
        from posttrain.algorithms.terms import group_credit
        from posttrain.estimator.parts import average, denominator, mask
        from posttrain.estimator.parts.credit import baseline

        return over_groups(
            self,
            paper="arXiv:2504.02546",
            ratio=denominator.current,
            mask=mask.keep,
            credit=partial(baseline.over_varying_groups, credit=group_credit(self.std, self.std_eps)),
            per=average.token,
        )
