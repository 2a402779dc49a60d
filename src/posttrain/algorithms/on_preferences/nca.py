"""Noise contrastive alignment, for pairs (Chen et al. 2024, arXiv:2402.05369).

u, v = sum_t(logp - ref) of the chosen and the rejected completion
L = - mean over pairs of [log sigmoid(beta u) + log sigmoid(-beta u)/2 + log sigmoid(-beta v)/2]
    mask 1, pi_ref = pi_theta (detached), N = pairs
    A = beta [sigmoid(-beta u) - sigmoid(beta u)/2] on the chosen, - beta sigmoid(beta v)/2 on the rejected completion: the
    chosen one is raised until sigmoid(beta u) = 2/3, and cannot fall as under DPO. As in TRL 1.16's code.
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


class NCA(OnPreferences):
    """The likelihood itself, not only a margin: what is chosen does not become less likely."""

    name: Literal["nca"] = "nca"
    beta: Positive = 0.01
    """How strongly the policy is held to the start model."""

    def build(self) -> Algorithm:
        """Each completion against noise."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs

        def contrast(chosen: Completions, rejected: Completions, *, beta: float) -> Tensor:
            won, lost = beta * chosen.gain, beta * rejected.gain
            return -logsigmoid(won) - logsigmoid(-won) / 2 - logsigmoid(-lost) / 2

        return pairs(self.name, "arXiv:2402.05369", partial(contrast, beta=self.beta))
