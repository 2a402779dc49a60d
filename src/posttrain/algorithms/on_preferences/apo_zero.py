"""Anchored preference optimization, zero (D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7).

u, v = sum_t(logp - ref) of the chosen and the rejected completion
L = mean over pairs of 1 - sigmoid(beta u) + sigmoid(beta v)
    mask 1, pi_ref = pi_theta (detached), N = pairs
    A = beta q (1 - q), q = sigmoid(beta u), on the chosen, - beta q (1 - q), q = sigmoid(beta v), on the rejected completion
    As in TRL 1.16's code.
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


class APOZero(OnPreferences):
    """Raises the chosen and lowers the rejected completion: for chosen ones that are better than the model."""

    name: Literal["apo_zero"] = "apo_zero"
    beta: Positive = 0.1
    """How fast a completion that has moved is left alone."""

    def build(self) -> Algorithm:
        """Both are anchored at the start model."""
        from posttrain.algorithms.on_preferences._pairs import pairs

        def anchored(chosen: Completions, rejected: Completions, *, beta: float) -> Tensor:
            return 1 - (beta * chosen.gain).sigmoid() + (beta * rejected.gain).sigmoid()

        return pairs(self.name, "arXiv:2408.06266", partial(anchored, beta=self.beta))
