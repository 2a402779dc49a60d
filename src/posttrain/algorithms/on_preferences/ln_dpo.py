"""Length-normalised DPO (used by Lambert et al. 2024, Tülu 3, arXiv:2411.15124).

m = mean_t(logp - ref) of the chosen completion - the same of the rejected one
L = - mean over pairs of log sigmoid(beta m)
    mask 1, pi_ref = pi_theta (detached), A = ±beta sigmoid(-beta m) / |y|, N = pairs
    As in TRL 1.16's code, `sigmoid_norm`.
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


class LNDPO(OnPreferences):
    """DPO over means of tokens: a long completion has no larger a margin than a short one."""

    name: Literal["ln_dpo"] = "ln_dpo"
    beta: Positive = 5.0
    """How strongly the policy is held to the start model, for a token."""

    def build(self) -> Algorithm:
        """The logistic loss of the margin of means."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs

        def normalised(chosen: Completions, rejected: Completions, *, beta: float) -> Tensor:
            return -logsigmoid(beta * (chosen.gain / chosen.length - rejected.gain / rejected.length))

        return pairs(self.name, "arXiv:2411.15124", partial(normalised, beta=self.beta))
