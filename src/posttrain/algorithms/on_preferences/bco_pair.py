"""Binary classifier optimization on pairs, without its shift (Jung et al. 2024, arXiv:2404.04656).

u, v = sum_t(logp - ref) of the chosen and the rejected completion
L = - mean over pairs of [log sigmoid(beta u) + log sigmoid(-beta v)]
    mask 1, pi_ref = pi_theta (detached), A = beta sigmoid(-beta u), - beta sigmoid(beta v), N = pairs
    As in TRL 1.16's code. An upper bound of DPO's loss that takes the two completions apart.
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


class BCOPair(OnPreferences):
    """A classifier of good and bad completions, of which each is seen alone."""

    name: Literal["bco_pair"] = "bco_pair"
    beta: Positive = 0.1
    """How strongly the policy is held to the start model."""

    def build(self) -> Algorithm:
        """The logistic loss of each completion."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs

        def classified(chosen: Completions, rejected: Completions, *, beta: float) -> Tensor:
            return -logsigmoid(beta * chosen.gain) - logsigmoid(-beta * rejected.gain)

        return pairs(self.name, "arXiv:2404.04656", partial(classified, beta=self.beta))
