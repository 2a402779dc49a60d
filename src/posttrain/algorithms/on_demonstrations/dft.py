"""Dynamic fine-tuning (Wu et al. 2025, arXiv:2508.05629, eq. 9): SFT weighted by the token's own probability.

    mask 1, pi_ref = 1, A = 1, N = tokens        L = - sum_t sg(p_t) log p_t / N
    beside it, sft_coef · SFT's                  L = - sum_t (sg(p_t) + sft_coef) log p_t / N

The official code takes a sum of micro-batch means; here, as in the paper, one N. The gradient is that of the mean of 1 - p,
logged as `objective/dft`; the printed loss, -sg(p) log p, is no objective: it is small where p is near 0 as well as where it
is near 1. From a random start DFT settles on the most frequent tokens and the NLL rises without end; it is made for models
that already give the right token a fair probability. Watch `nll`.

`sft_coef` is a floor under the weight of tokens that the policy gives little probability, on which DFT alone learns next to
nothing (a mix of the two losses; ours, no paper's setting). With a KL to the start model it is `asft`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnDemonstrations
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class DFT(OnDemonstrations):
    """Dynamic fine-tuning: SFT weighted by the token's own probability."""

    name: Literal["dft"] = "dft"
    sft_coef: NonNegative = 0.0
    """Weight of SFT's own loss beside it."""

    def build(self) -> Algorithm:
        """SFT's row with denominator 1."""
        from posttrain.algorithms.on_demonstrations._dft import dft_terms
        from posttrain.estimator import Algorithm, Needs

        return Algorithm(
            name=self.name,
            paper="arXiv:2508.05629",
            needs=Needs(scope="token", demonstration="row"),
            terms=dft_terms(self.sft_coef),
        )
