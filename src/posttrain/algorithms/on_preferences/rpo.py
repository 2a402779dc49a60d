"""DPO with the likelihood of what is chosen beside it: iterative reasoning preference optimization (Pang et al. 2024,
arXiv:2404.19733).

L = DPO's + alpha · the negative log-likelihood of the chosen completions
    the second: mask 1, pi_ref = pi_theta (detached), A = 1 on chosen completions
    `sft_average: sequence_mean`: 1/|y| and N = chosen completions, as in the paper (recalled); `token`: N = their tokens,
    as in TRL 1.16's code (losses `sigmoid` and `sft`).
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


class RPO(OnPreferences):
    """DPO that also imitates what is chosen, so that its likelihood does not fall."""

    name: Literal["rpo"] = "rpo"
    beta: Positive = 0.1
    """How strongly the policy is held to the start model."""
    sft_coef: NonNegative = 1.0
    """alpha: weight of the likelihood; 0 is DPO."""
    sft_average: Literal["sequence_mean", "token"] = "sequence_mean"
    """What the likelihood is averaged over: completions of their means, or tokens."""

    def build(self) -> Algorithm:
        """The logistic loss of the margin, and the likelihood."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import chosen_sft, pairs
        from posttrain.estimator.parts import average

        def logistic(chosen: Completions, rejected: Completions, *, beta: float) -> Tensor:
            return -logsigmoid(beta * (chosen.gain - rejected.gain))

        per = {"sequence_mean": average.sequence_mean, "token": average.token}[self.sft_average]
        loss = partial(logistic, beta=self.beta)
        return pairs(self.name, "arXiv:2404.19733", loss, *chosen_sft(self.sft_coef, per))
