"""Length-regularised DPO (Park et al. 2024, arXiv:2403.19159).

m = sum_t(logp - ref) of the chosen completion - the same of the rejected one, |y| loss tokens
L = - mean over pairs of log sigmoid(beta m + alpha (|y_w| - |y_l|))
    mask 1, pi_ref = pi_theta (detached), A = ±beta sigmoid(-(beta m + alpha (|y_w| - |y_l|))), N = pairs
    The sign is derived: where labels follow quality plus alpha · length, the fit with + is beta m = the difference of quality
    alone; with - the length is learnt twice. Notes of others write it the other way round.
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


class RDPO(OnPreferences):
    """DPO that explains by length what length explains of the labels, and learns the rest."""

    name: Literal["r_dpo"] = "r_dpo"
    beta: Positive = 0.1
    """How strongly the policy is held to the start model."""
    length_coef: NonNegative = 0.01
    """alpha: what a token more adds to the odds of being chosen, 0.01 to 0.1."""

    def build(self) -> Algorithm:
        """The logistic loss of the margin and the difference of lengths."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs

        def regularised(chosen: Completions, rejected: Completions, *, beta: float, length_coef: float) -> Tensor:
            longer = chosen.length - rejected.length
            return -logsigmoid(beta * (chosen.gain - rejected.gain) + length_coef * longer)

        return pairs(self.name, "arXiv:2403.19159", partial(regularised, beta=self.beta, length_coef=self.length_coef))
