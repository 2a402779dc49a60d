"""Generalised knowledge distillation (arXiv:2306.13649): whole distributions, on what the student writes.

    no term; penalty JSD_beta(q || pi) = beta KL(q || m) + (1 - beta) KL(pi || m),  m = beta q + (1 - beta) pi,  N = tokens

q is the teacher. beta = 0 is KL(q || pi) and beta = 1 is KL(pi || q), by definition: the formula itself tends to 0 there.
The paper draws a share lambda of its steps from the student and the others from data; here each step has rows of both, its
rollouts and `demonstrations` rows of a set of its own, whose share of the rows is 1 - lambda. Without them lambda is 1;
lambda = 0, with the forward KL, is `kd` at alpha = 1. Rollouts are not differentiated through.

Distributions are of logits divided by the temperature at which the student samples. TRL compares at 1, whatever it samples
at. The definition is read in TRL's code and checked against it; the paper is recalled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from posttrain.algorithms.options import OnSamples, Taught
from posttrain.settings.base import NonNegativeCount, Share

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class GKD(Taught, OnSamples):
    """Generalised knowledge distillation on the student's rollouts."""

    name: Literal["gkd"] = "gkd"
    updates: Literal[1] = 1
    """Optimizer steps for each collection."""
    beta: Share = 0.5
    """Between KL(q || pi), at 0, and KL(pi || q), at 1."""
    demonstrations: NonNegativeCount = 0
    """Rows of data.demonstrations in each optimizer step, beside the rollouts."""

    @property
    def takes_demonstrations(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `AlgorithmConfig`."""
        return self.demonstrations > 0

    @property
    def learns_from_rewards(self) -> bool:
        """See `AlgorithmConfig`."""
        return False

    def build(self) -> Algorithm:
        """A penalty by itself."""
        from posttrain.algorithms.from_teachers._parts import divergence
        from posttrain.estimator import Algorithm, Needs

        shown: Any = {"demonstration": "separate", "demonstrations": self.demonstrations} if self.demonstrations else {}
        return Algorithm(
            name=self.name,
            paper="arXiv:2306.13649",
            needs=Needs(
                scope="token",
                rollouts=self.rollouts,
                teacher="full",
                teacher_template=self.teacher_template or "",
                **shown,
            ),
            terms=(),
            penalties=(divergence(self.beta),),
        )
