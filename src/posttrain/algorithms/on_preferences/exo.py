"""Efficient exact optimization, for pairs (Ji et al. 2024, arXiv:2402.00856, eq. 16).

m = sum_t(logp - ref) of the chosen completion - the same of the rejected one, q = sigmoid(beta m)
L = mean over pairs of KL((q, 1 - q) || (1 - e, e)): the reverse of DPO's divergence, which seeks the mode
    mask 1, pi_ref = pi_theta (detached), A = ∓beta q (1 - q) [beta m - log((1 - e)/e)], N = pairs
    As in TRL 1.16's code.
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


class EXO(OnPreferences):
    """The reverse KL between the policy's preference and the label's."""

    name: Literal["exo"] = "exo"
    beta: Positive = 0.1
    """How strongly the policy is held to the start model."""
    label_smoothing: Annotated[float, Field(gt=0, lt=0.5)] = 1e-3
    """e: the probability that a label leaves to the rejected completion; more than 0, or the divergence is infinite."""

    def build(self) -> Algorithm:
        """KL((q, 1 - q) || (1 - e, e))."""
        from math import log, log1p

        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs

        def reverse_kl(chosen: Completions, rejected: Completions, *, beta: float, label_smoothing: float) -> Tensor:
            logit = beta * (chosen.gain - rejected.gain)
            won = logit.sigmoid() * (logsigmoid(logit) - log1p(-label_smoothing))
            return won + (-logit).sigmoid() * (logsigmoid(-logit) - log(label_smoothing))

        loss = partial(reverse_kl, beta=self.beta, label_smoothing=self.label_smoothing)
        return pairs(self.name, "arXiv:2402.00856", loss)
