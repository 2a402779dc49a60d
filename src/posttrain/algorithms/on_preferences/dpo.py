"""Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290, eq. 7).

m = sum_t(logp - ref) of the chosen completion - the same of the rejected one
L = - mean over pairs of log sigmoid(beta m)
    mask 1, pi_ref = pi_theta (detached), A = ±beta sigmoid(-beta m), N = pairs
    label smoothing e (Mitchell 2023): A = ±beta [(1 - e) sigmoid(-beta m) - e sigmoid(beta m)]
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


class DPO(OnPreferences):
    """Direct preference optimization."""

    name: Literal["dpo"] = "dpo"
    beta: Positive = 0.1
    """How strongly the policy is held to the start model."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """The share of pairs that are believed to be the wrong way round."""

    def build(self) -> Algorithm:
        """The logistic loss of the margin."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs

        def logistic(chosen: Completions, rejected: Completions, *, beta: float, label_smoothing: float) -> Tensor:
            logit = beta * (chosen.gain - rejected.gain)
            return -(1 - label_smoothing) * logsigmoid(logit) - label_smoothing * logsigmoid(-logit)

        loss = partial(logistic, beta=self.beta, label_smoothing=self.label_smoothing)
        return pairs(self.name, "arXiv:2305.18290", loss)
