"""DPO-positive (Pal et al. 2024, arXiv:2402.13228).

u = sum_t(logp - ref) of the chosen completion, m = u - the same of the rejected one
L = - mean over pairs of log sigmoid(beta (m - lambda max(0, -u)))
    mask 1, pi_ref = pi_theta (detached), N = pairs, with g = beta sigmoid(-beta (m - lambda max(0, -u)))
    A = (1 + lambda [u < 0]) g on the chosen, -g on the rejected completion
    Formula and settings are recalled.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnPreferences
from posttrain.settings.base import NonNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts.preference import Completions


class DPOP(OnPreferences):
    """DPO that does not pay for a margin by making the chosen completion less likely than it was."""

    name: Literal["dpop"] = "dpop"
    beta: Positive = 0.3
    """How strongly the policy is held to the start model."""
    penalty: NonNegative = 50.0
    """lambda: the price of each nat by which the chosen completion has become less likely."""

    def build(self) -> Algorithm:
        """The logistic loss of a margin that is less where the chosen completion has lost."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs

        def positive(chosen: Completions, rejected: Completions, *, beta: float, penalty: float) -> Tensor:
            lost = (-chosen.gain).clamp(min=0)
            return -logsigmoid(beta * (chosen.gain - rejected.gain - penalty * lost))

        return pairs(self.name, "arXiv:2402.13228", partial(positive, beta=self.beta, penalty=self.penalty))
