"""DPO made unbiased for labels that are flipped with a known probability (Chowdhury et al. 2024, arXiv:2403.00409).

m = sum_t(logp - ref) of the chosen completion - the same of the rejected one, e the probability of a flip
L = mean over pairs of [-(1 - e) log sigmoid(beta m) + e log sigmoid(-beta m)] / (1 - 2 e)
    mask 1, pi_ref = pi_theta (detached), A = ±beta [(1 - e) sigmoid(-beta m) + e sigmoid(beta m)] / (1 - 2 e), N = pairs
    Its mean over labels so flipped is DPO's loss on the true ones. As in TRL 1.16's code.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from posttrain.algorithms.options import OnPreferences
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts.preference import Completions


class RobustDPO(OnPreferences):
    """DPO on noisy labels, unbiased: where the share of wrong labels is known."""

    name: Literal["robust_dpo"] = "robust_dpo"
    beta: Positive = 0.1
    """How strongly the policy is held to the start model."""
    flipped: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """The probability that a pair is the wrong way round; label_smoothing in TRL."""

    def build(self) -> Algorithm:
        """The logistic loss, less what flipped labels add to it on average."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs

        def unbiased(chosen: Completions, rejected: Completions, *, beta: float, flipped: float) -> Tensor:
            logit = beta * (chosen.gain - rejected.gain)
            return (-(1 - flipped) * logsigmoid(logit) + flipped * logsigmoid(-logit)) / (1 - 2 * flipped)

        return pairs(self.name, "arXiv:2403.00409", partial(unbiased, beta=self.beta, flipped=self.flipped))
