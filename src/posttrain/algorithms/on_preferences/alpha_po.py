"""AlphaPO (Gupta et al. 2025, arXiv:2501.03884): SimPO with another shape of its reward.

r = (1 - p^(-alpha)) / alpha, p = exp(mean_t logp) of a completion
L = - mean over pairs of log sigmoid(beta (r_w - r_l) - gamma)
    mask 1, pi_ref = pi_theta (detached), A = ±beta sigmoid(-(beta (r_w - r_l) - gamma)) p^(-alpha) / |y|, N = pairs
    As in TRL 1.16's code; alpha 0.25 and the other settings, SimPO's, are recalled. The exponent is capped
    at MAX_LOG_RATIO, ours.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from posttrain.algorithms.options import OnPreferences
from posttrain.settings.base import NonNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts.preference import Completions


class AlphaPO(OnPreferences):
    """SimPO in which a completion that is unlikely pulls more, or less, than its log-prob says."""

    name: Literal["alpha_po"] = "alpha_po"
    beta: Positive = 2.0
    """Scale of the rewards."""
    gamma: NonNegative = 1.0
    """The margin that a chosen completion should have, in units of beta · reward."""
    alpha: float = 0.25
    """The shape, not 0, which is SimPO; above 0 unlikely completions pull more, below 0 less."""

    @model_validator(mode="after")
    def _has_a_shape(self) -> AlphaPO:
        if self.alpha == 0:
            raise ValueError("alpha: 0 is SimPO: take name: simpo")
        return self

    def build(self) -> Algorithm:
        """The logistic loss of the difference of rewards, less the margin."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs
        from posttrain.estimator.batch import MAX_LOG_RATIO

        def shaped(chosen: Completions, rejected: Completions, *, beta: float, gamma: float, alpha: float) -> Tensor:
            won, lost = (-(-alpha * each.mean).clamp(max=MAX_LOG_RATIO).expm1() / alpha for each in (chosen, rejected))
            return -logsigmoid(beta * (won - lost) - gamma)

        loss = partial(shaped, beta=self.beta, gamma=self.gamma, alpha=self.alpha)
        return pairs(self.name, "arXiv:2501.03884", loss, reference=False)
