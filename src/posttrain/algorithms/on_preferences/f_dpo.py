"""DPO under other divergences from the start model (Wang et al. 2023, arXiv:2309.16240).

g(u) = f'(exp u), u = sum_t(logp - ref):   reverse_kl u    forward_kl 1 - exp(-u)    js log 2 + log sigmoid(u)
                                          alpha (exp((alpha - 1) u) - 1) / (alpha - 1)
L = - mean over pairs of log sigmoid(beta [g(u) - g(v)]), v the same of the rejected completion
    mask 1, pi_ref = pi_theta (detached), A = beta sigmoid(-beta [g(u) - g(v)]) · (g'(u), -g'(v)), N = pairs
    As in TRL 1.16's code; exponents are capped at MAX_LOG_RATIO, beyond which g is flat, ours.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from posttrain.algorithms.options import OnPreferences
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts.preference import Completions

    Slope = Callable[[Tensor], Tensor]


class FDPO(OnPreferences):
    """DPO whose policy is held to the start model by a divergence of choice."""

    name: Literal["f_dpo"] = "f_dpo"
    beta: Positive = 0.1
    """How strongly the policy is held to the start model."""
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = "forward_kl"
    """f; reverse_kl is DPO."""
    alpha: Annotated[float, Field(gt=0)] = 0.5
    """Of the alpha-divergence, not 1, which is reverse_kl."""

    def unread(self) -> dict[str, str]:
        """See `AlgorithmConfig`."""
        return {} if self.divergence == "alpha" else {"alpha": "divergence: alpha"}

    @model_validator(mode="after")
    def _has_a_divergence(self) -> FDPO:
        if self.alpha == 1 and self.divergence == "alpha":
            raise ValueError("alpha: 1 is the reverse KL: take divergence: reverse_kl")
        return self

    def build(self) -> Algorithm:
        """The logistic loss of the difference of g."""
        from math import log

        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs
        from posttrain.estimator.batch import MAX_LOG_RATIO

        def reverse_kl(gain: Tensor) -> Tensor:
            return gain

        def forward_kl(gain: Tensor) -> Tensor:
            return -(-gain).clamp(max=MAX_LOG_RATIO).expm1()

        def js(gain: Tensor) -> Tensor:
            return log(2) + logsigmoid(gain)

        def alpha(gain: Tensor, *, alpha: float) -> Tensor:
            return ((alpha - 1) * gain).clamp(max=MAX_LOG_RATIO).expm1() / (alpha - 1)

        def divergent(
            chosen: Completions, rejected: Completions, *, beta: float, divergence: Callable[..., Tensor]
        ) -> Tensor:
            return -logsigmoid(beta * (divergence(chosen.gain) - divergence(rejected.gain)))

        slopes: dict[str, Slope] = {
            "reverse_kl": reverse_kl,
            "forward_kl": forward_kl,
            "js": js,
            "alpha": partial(alpha, alpha=self.alpha),
        }
        loss = partial(divergent, beta=self.beta, divergence=slopes[self.divergence])
        return pairs(self.name, "arXiv:2309.16240", loss)
