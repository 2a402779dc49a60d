"""Anchored SFT (arXiv:2509.23753): DFT with a full-vocabulary KL to the frozen start model.

    DFT's loss  + kl_coef · sum_t KL(pi_start(·|s_t) || pi_theta(·|s_t)) / N

Forward KL over the whole vocabulary, not weighted by p_t, at every supervised token; N = tokens. The official code takes the
mean of micro-batch means; here, as in the paper, one N.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnDemonstrations
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class ASFT(OnDemonstrations):
    """Anchored SFT: DFT with a full-vocabulary KL to the frozen start model."""

    name: Literal["asft"] = "asft"
    kl_coef: NonNegative = 0.05
    """0.05 in the paper; the official code's default is 0.1, and its notes prefer 0.03 in bfloat16."""
    sft_coef: NonNegative = 0.0
    """Weight of SFT's own loss beside it (ours)."""

    def build(self) -> Algorithm:
        """DFT's row and a penalty beside it; `kl_coef=0` is DFT."""
        from posttrain.algorithms.on_demonstrations._dft import dft_terms
        from posttrain.algorithms.on_demonstrations._start import kl_to_start
        from posttrain.estimator import Algorithm, Needs

        return Algorithm(
            name=self.name,
            paper="arXiv:2509.23753",
            needs=Needs(scope="token", demonstration="row", full_kl=self.kl_coef > 0),
            terms=dft_terms(self.sft_coef),
            penalties=kl_to_start(self.kl_coef),
        )
