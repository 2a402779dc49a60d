"""Identity preference optimization (Azar et al. 2023, arXiv:2310.12036, eq. 17).

m = sum_t(logp - ref) of the chosen completion - the same of the rejected one
L = mean over pairs of (m - 1/(2 beta))²
    mask 1, pi_ref = pi_theta (detached), A = ∓2 (m - 1/(2 beta)), N = pairs
    `average: token` takes means over tokens in m, as TRL does
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


class IPO(OnPreferences):
    """Identity preference optimization."""

    name: Literal["ipo"] = "ipo"
    beta: Positive = 0.1
    """tau in the paper."""
    average: Literal["sum", "token"] = "sum"
    """The margin's log-ratios over a completion: their sum, or their mean, as TRL has it."""

    def build(self) -> Algorithm:
        """The squared loss of the margin."""
        from posttrain.algorithms.on_preferences._pairs import pairs

        def squared(chosen: Completions, rejected: Completions, *, beta: float, per_token: bool) -> Tensor:
            of = [each.gain / each.length if per_token else each.gain for each in (chosen, rejected)]
            return (of[0] - of[1] - 1 / (2 * beta)) ** 2

        return pairs(self.name, "arXiv:2310.12036", partial(squared, beta=self.beta, per_token=self.average == "token"))
