"""Group relative policy optimization (arXiv:2402.03300). `_groups.py` has the table of its kin.

mask of PPO, pi_ref = pi_old, A = (R - mean)/(std + e) of the group, N = rows, s = 1/|y|;  kl_coef · k3 beside it (eq. 4)
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from posttrain.algorithms.on_rollouts._groups import Clipped, over_groups
from posttrain.algorithms.options import KLCoefficient

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class GRPO(Clipped):
    """Group relative policy optimization."""

    name: Literal["grpo"] = "grpo"
    kl_coef: KLCoefficient = 0.04
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """A token of negative advantage leaves the loss where its ratio is above this as well. It is INTELLECT-2's two-sided clip
    (arXiv:2505.07291), whose delta beyond 1 + clip_high changes nothing for positive ones."""

    def build(self) -> Algorithm:
        """The table's row `grpo`."""
        from posttrain.estimator.parts import average, denominator
        from posttrain.estimator.parts.credit import baseline

        return over_groups(
            self,
            paper="arXiv:2402.03300",
            ratio=denominator.old,
            mask=self.clip(self.dual_clip),
            credit=partial(baseline.group_normalised, eps=self.std_eps),
            per=average.sequence_mean,
            metrics=self.native(self.dual_clip),
        )
