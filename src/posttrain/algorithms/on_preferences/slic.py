"""Sequence likelihood calibration with human feedback (Zhao et al. 2023, arXiv:2305.10425): without a reference.

s = sum_t logp of a completion
L = mean over pairs of max(0, delta - s_w + s_l) + lambda · the negative log-likelihood of the chosen completions
    mask 1, pi_ref = pi_theta (detached), A = ±1 where s_w - s_l < delta, else 0, N = pairs; and A = 1, N = chosen tokens
    The rank loss is delta times TRL 1.16's hinge at beta = 1/delta; settings recalled. The paper's likelihood is of an SFT
    target, which pairs do not have: the chosen completion stands for it, ours.
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


class SLiC(OnPreferences):
    """A pair pulls until the chosen completion is likelier by delta nats, held by the likelihood of what is chosen."""

    name: Literal["slic"] = "slic"
    delta: Positive = 1.0
    """The margin in nats from which a pair is left alone."""
    sft_coef: NonNegative = 0.1
    """lambda: weight of the likelihood of what is chosen."""

    def build(self) -> Algorithm:
        """The rank loss, and the likelihood."""
        from posttrain.algorithms.on_preferences._pairs import chosen_sft, pairs

        def rank(chosen: Completions, rejected: Completions, *, delta: float) -> Tensor:
            return (delta - chosen.logp + rejected.logp).clamp(min=0)

        loss = partial(rank, delta=self.delta)
        return pairs(self.name, "arXiv:2305.10425", loss, *chosen_sft(self.sft_coef), reference=False)
