"""Anchored preference optimization, down (D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 8).

u, v = sum_t(logp - ref) of the chosen and the rejected completion
L = mean over pairs of sigmoid(beta u) + 1 - sigmoid(beta (u - v))
    mask 1, pi_ref = pi_theta (detached), N = pairs, with q = sigmoid(beta u), k = sigmoid(beta (u - v))
    A = beta [k (1 - k) - q (1 - q)], - beta k (1 - k). As in TRL 1.16's code.
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


class APODown(OnPreferences):
    """Lowers both, the rejected completion more: for chosen ones that are worse than the model."""

    name: Literal["apo_down"] = "apo_down"
    beta: Positive = 0.1
    """How fast a completion that has moved is left alone."""

    def build(self) -> Algorithm:
        """The chosen is anchored at the start model, the rejected at the chosen."""
        from posttrain.algorithms.on_preferences._pairs import pairs

        def anchored(chosen: Completions, rejected: Completions, *, beta: float) -> Tensor:
            return (beta * chosen.gain).sigmoid() + 1 - (beta * (chosen.gain - rejected.gain)).sigmoid()

        return pairs(self.name, "arXiv:2408.06266", partial(anchored, beta=self.beta))
