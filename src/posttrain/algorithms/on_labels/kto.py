"""Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7 and 8).

u = sum_t(logp - ref) of a completion, l = 1 where it is wanted, -1 where it is not, lambda = desirable or undesirable
z0 = max(0, mean over the step's rows of sum_t(logp - ref) of the completion of the row before, to the prompt of this one)
L = mean over rows of lambda (1 - sigmoid(beta l (u - z0)))
    mask 1, pi_ref = pi_theta (detached), A = l lambda beta q (1 - q), q = sigmoid(beta (u - z0)), N = rows
z0 estimates KL(pi || ref) and has no gradient. It is made of the whole step, over all ranks, before its first micro-batch,
which takes one forward more of the policy and of the start model. TRL 1.16, whose code was read, makes it of each device's
micro-batch: the difference is ours, because the gradient may not depend on how a step is cut. `anchor: zero` is z0 = 0
without that forward: the unpaired form of APO-zero (arXiv:2408.06266, eq. 7; `apo_zero_unpaired` in TRL).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnLabels
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts.preference import Completions


class KTO(OnLabels):
    """Kahneman-Tversky optimization: each completion alone, against what the policy gives others on average."""

    name: Literal["kto"] = "kto"
    beta: Positive = 0.1
    """How fast a completion that has moved is left alone."""
    desirable: Positive = 1.0
    """Weight of rows that are wanted; times their number it should be 1 to 4/3 of the same of the others."""
    undesirable: Positive = 1.0
    """Weight of rows that are not wanted."""
    anchor: Literal["mismatched", "zero"] = "mismatched"
    """z0: of completions that answer other prompts, which is a forward more for each step; or 0."""

    def build(self) -> Algorithm:
        """The value of a gain or a loss, which saturates."""
        from torch import where

        from posttrain.algorithms.on_labels._labels import labels

        def prospect(one: Completions, *, beta: float, desirable: float, undesirable: float, anchored: bool) -> Tensor:
            gain = one.gain - one.view.require("anchor") if anchored else one.gain
            value = 1 - (beta * one.label * gain).sigmoid()
            return where(one.label > 0, desirable * value, undesirable * value)

        weights = {"desirable": self.desirable, "undesirable": self.undesirable}
        anchored = self.anchor == "mismatched"
        loss = partial(prospect, beta=self.beta, **weights, anchored=anchored)
        return labels(self.name, "arXiv:2402.01306", loss, anchor="mismatched" if anchored else "none")
