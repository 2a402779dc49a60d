"""The hinge loss on DPO's margin: SLiC with a reference (Zhao et al. 2023, arXiv:2305.10425), RSO's loss (Liu et al. 2023,
arXiv:2309.06657).

m = sum_t(logp - ref) of the chosen completion - the same of the rejected one
L = mean over pairs of max(0, 1 - beta m)
    mask 1, pi_ref = pi_theta (detached), A = ±beta where beta m < 1, else 0, N = pairs
    As in TRL 1.16's code; beta 0.05 is recalled.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnPreferences
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts.preference import Completions


class HingeDPO(OnPreferences):
    """A pair pulls with all its strength until the margin is reached, and then no more."""

    name: Literal["hinge_dpo"] = "hinge_dpo"
    beta: Positive = 0.05
    """1 / the margin, in nats, from which a pair is left alone."""

    def build(self) -> Algorithm:
        """The hinge of the margin."""
        from posttrain.algorithms.on_preferences._pairs import pairs

        def hinge(chosen: Completions, rejected: Completions, *, beta: float) -> Tensor:
            return (1 - beta * (chosen.gain - rejected.gain)).clamp(min=0)

        return pairs(self.name, "arXiv:2309.06657", partial(hinge, beta=self.beta))
