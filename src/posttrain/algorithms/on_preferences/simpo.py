"""Simple preference optimization (Meng et al. 2024, arXiv:2405.14734): without a reference.

x = mean_t logp of a completion
L = - mean over pairs of log sigmoid(beta (x_w - x_l) - gamma)
    mask 1, pi_ref = pi_theta (detached), A = ±beta sigmoid(-(beta (x_w - x_l) - gamma)) / |y|, N = pairs
    with sft_coef, CPO-SimPO: + sft_coef · the negative log-likelihood of the chosen completions, N = their tokens
    As in TRL 1.16's code, which writes gamma as beta · (gamma / beta); settings are recalled: beta 2 to 10,
    gamma/beta 0.3 to 0.5.
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


class SimPO(OnPreferences):
    """The mean log-prob is the reward, and no start model is held."""

    name: Literal["simpo"] = "simpo"
    beta: Positive = 2.0
    """Scale of the mean log-probs."""
    gamma: NonNegative = 1.0
    """The margin that a chosen completion should have, in units of beta · nats."""
    sft_coef: NonNegative = 0.0
    """Weight of the likelihood of what is chosen."""

    def build(self) -> Algorithm:
        """The logistic loss of the difference of means, less the margin."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import chosen_sft, pairs

        def of_means(chosen: Completions, rejected: Completions, *, beta: float, gamma: float) -> Tensor:
            return -logsigmoid(beta * (chosen.mean - rejected.mean) - gamma)

        loss = partial(of_means, beta=self.beta, gamma=self.gamma)
        return pairs(self.name, "arXiv:2405.14734", loss, *chosen_sft(self.sft_coef), reference=False)
