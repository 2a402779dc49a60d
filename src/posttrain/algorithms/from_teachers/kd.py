"""Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531): demonstrations, and a teacher's whole distribution at each
of their tokens.

    mask 1, pi_ref = pi_theta, A = 1, times 1 - alpha;  penalty alpha T² KL(q_T || pi_T), N = tokens

q_T and pi_T are softmax(logits / T) of the teacher and of the student; T² keeps the size of the gradient whatever T is. The
paper says how the two losses are combined, and that the hard one weighs little; the values of alpha and T are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnDemonstrations, Taught
from posttrain.settings.base import Positive, Share

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class KD(Taught, OnDemonstrations):
    """Knowledge distillation on demonstrations."""

    name: Literal["kd"] = "kd"
    alpha: Share = 0.5
    """Weight of the teacher; the demonstrations' likelihood has what is left of 1."""
    temperature: Positive = 1.0
    """Both distributions are of logits divided by it."""

    def build(self) -> Algorithm:
        """SFT's row, and a penalty beside it; `alpha=0` is SFT."""
        from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Penalty, Term
        from posttrain.estimator.parts import advantage, average, denominator, metric

        likelihood = Term(
            name="sft",
            estimator=Estimator(denominator=denominator.current, advantage=advantage.one),
            average=average.token,
            coef=1 - self.alpha,
            metrics=(Metric("nll", metric.nll),),
        )
        teacher = Penalty(
            name="divergence/teacher", quantity="kl", coef=self.alpha * self.temperature**2, temperature=self.temperature
        )
        return Algorithm(
            name=self.name,
            paper="arXiv:1503.02531",
            needs=Needs(scope="token", demonstration="row", teacher="full", teacher_template=self.teacher_template or ""),
            terms=(likelihood,),
            penalties=(teacher,),
        )
