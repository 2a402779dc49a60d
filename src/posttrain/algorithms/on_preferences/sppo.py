"""Self-play preference optimization with hard labels (Wu et al. 2024, arXiv:2405.00675, eq. 4.7 with P = 1 and 0).

u, v = sum_t(logp - ref) of the chosen and the rejected completion
L = mean over pairs of (u - 1/(2 beta))² + (v + 1/(2 beta))²
    mask 1, pi_ref = pi_theta (detached), A = -2 (u - 1/(2 beta)), -2 (v + 1/(2 beta)), N = pairs
    As in TRL 1.16's code; beta is 1/eta. The paper's probabilities of winning are of a judge, which pairs do not have.
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


class SPPO(OnPreferences):
    """Each log-ratio is drawn to a number of its own: up for the chosen, down for the rejected completion."""

    name: Literal["sppo"] = "sppo"
    beta: Positive = 1e-3
    """1/eta: log-ratios are drawn to ±1/(2 beta) nats."""

    def build(self) -> Algorithm:
        """Two squared losses."""
        from posttrain.algorithms.on_preferences._pairs import pairs

        def squares(chosen: Completions, rejected: Completions, *, beta: float) -> Tensor:
            return (chosen.gain - 1 / (2 * beta)) ** 2 + (rejected.gain + 1 / (2 * beta)) ** 2

        return pairs(self.name, "arXiv:2405.00675", partial(squares, beta=self.beta))
