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
    from posttrain.estimator import Algorithm


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
        from posttrain.estimator import Metric
        from posttrain.estimator.parts import advantage, metric

        options = {"beta": self.beta, "per_token": self.average == "token"}
        native = Metric("objective/ipo", partial(metric.squared_preference_loss, **options))
        return pairs(self.name, "arXiv:2310.12036", partial(advantage.squared_preference, **options), native)
