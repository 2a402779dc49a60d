"""Discovered preference optimization (Lu et al. 2024, arXiv:2406.08414, eq. 5).

z = beta m, m = sum_t(logp - ref) of the chosen completion - the same of the rejected one, k = sigmoid(z / tau)
L = mean over pairs of -(1 - k) log sigmoid(z) + k exp(-z): DPO's loss for z far below 0, the exponential one far above
    mask 1, pi_ref = pi_theta (detached), A = ∓beta dL/dz, N = pairs
    As in TRL 1.16's code; the exponent is capped at MAX_LOG_RATIO, ours.
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


class DiscoPOP(OnPreferences):
    """A blend of the logistic and the exponential loss, which a language model found; not convex."""

    name: Literal["discopop"] = "discopop"
    beta: Positive = 0.05
    """How strongly the policy is held to the start model."""
    tau: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Width of the blend, in units of z."""

    def build(self) -> Algorithm:
        """The two losses, mixed by the margin."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs
        from posttrain.estimator.batch import MAX_LOG_RATIO

        def blend(chosen: Completions, rejected: Completions, *, beta: float, tau: float) -> Tensor:
            logit = beta * (chosen.gain - rejected.gain)
            share = (logit / tau).sigmoid()
            return -(1 - share) * logsigmoid(logit) + share * (-logit).clamp(max=MAX_LOG_RATIO).exp()

        return pairs(self.name, "arXiv:2406.08414", partial(blend, beta=self.beta, tau=self.tau))
