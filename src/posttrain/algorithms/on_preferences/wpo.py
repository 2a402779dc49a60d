"""Weighted preference optimization (Zhou et al. 2024, arXiv:2406.11827, eq. 2): pairs as the policy would write them.

omega = exp(mean over tokens of log p(y_t) - log sum_v p(v)^2), under the policy as it is, detached
L = - mean over pairs of omega_w omega_l log sigmoid(beta m)
    mask 1, pi_ref = pi_theta (detached), A = ±omega_w omega_l beta sigmoid(-beta m), N = pairs
    Of what the policy itself writes, omega is 1 on average for one token, and less for several (Jensen): pairs, and with
    them the steps, weigh less than in DPO.
    As in TRL 1.16's code (`use_weighting`). The sum over the vocabulary is made in the output layer's own pass.
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


class WPO(OnPreferences):
    """DPO in which pairs count as much as the policy would write them: data of another one, made to weigh as its own."""

    name: Literal["wpo"] = "wpo"
    beta: Positive = 0.1
    """Scale of the margin."""

    def build(self) -> Algorithm:
        """The logistic loss of the margin, weighted."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs

        def weighted(chosen: Completions, rejected: Completions, *, beta: float) -> Tensor:
            return -chosen.weight * rejected.weight * logsigmoid(beta * (chosen.gain - rejected.gain))

        return pairs(self.name, "arXiv:2406.11827", partial(weighted, beta=self.beta), collision=True)
