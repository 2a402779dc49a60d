"""SRFT, supervised reinforcement fine-tuning in one stage (arXiv:2506.19767): three terms, weighted by entropy.

    demonstration, SFT:  pi_ref = pi_theta,  A = 0.5 · exp(-H)
    demonstration, RL:   pi_ref = 1,         A = (R - mean)/(std + e) over rollouts and demonstration
    rollouts:            pi_ref = pi_theta,  A = 0.1 · exp(H) on right ones, -1 on wrong ones        (eq. 11 and 12)

N = rows × max_tokens for each. H is the collecting policy's mean entropy of the row; the paper does not say of what it is
taken. exp(H) is bounded by `entropy_cap`, for nothing else bounds it. The official code could not be read, and is said to
have exp(+H) on demonstrations; this is the paper.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.algorithms.options import Hybrid
from posttrain.settings.base import Count, NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class SRFT(Hybrid):
    """Supervised reinforcement fine-tuning."""

    reads_verdict = True
    beside_rollouts: ClassVar[bool] = True

    name: Literal["srft"] = "srft"
    sft_coef: NonNegative = 0.5
    """Weight of the SFT loss, times exp(-H), H the policy's mean entropy on the demonstration."""
    right_coef: NonNegative = 0.1
    """Weight of right rollouts, times exp(H); that of wrong ones is -1."""
    entropy_cap: Annotated[float, Field(ge=1)] = 5.0
    """The largest exp(H)."""
    std: bool = True
    """Divide advantages by the standard deviation of the group's rewards, as GRPO does."""
    max_tokens: Count
    """The constant length in N. The recipe fills it from `rollout.max_tokens`."""

    def build(self) -> Algorithm:
        """Two terms over the demonstration, one over the rollouts."""
        from posttrain.algorithms.terms import correction_part, entropy_penalties, group_credit, kl_terms, needs
        from posttrain.estimator import Algorithm, Estimator, Term
        from posttrain.estimator.parts import advantage, average, denominator, select
        from posttrain.estimator.parts.credit import baseline, verdict

        per = average.constant(self.max_tokens)
        return Algorithm(
            name=self.name,
            paper="arXiv:2506.19767",
            needs=needs(self, demonstration="row", collected_entropy="rows"),
            terms=(
                Term(
                    name="rollouts",
                    estimator=Estimator(
                        denominator=denominator.current,
                        advantage=advantage.given,
                        correction=correction_part(self.correction),
                    ),
                    average=per,
                    select=select.rollouts,
                ),
                Term(
                    name="demonstration_rl",
                    estimator=Estimator(denominator=denominator.unit, advantage=advantage.given),
                    average=per,
                    select=select.demonstrations,
                ),
                Term(
                    name="demonstration_sft",
                    estimator=Estimator(
                        denominator=denominator.current, advantage=partial(advantage.confidence, coef=self.sft_coef)
                    ),
                    average=per,
                    select=select.demonstrations,
                ),
                *kl_terms(self.kl_coef, "k3", per, select.rollouts),
            ),
            penalties=entropy_penalties(self.entropy_coef),
            credit=partial(
                baseline.in_turn,
                steps=(
                    partial(verdict.row_entropy, cap=self.entropy_cap),
                    group_credit(self.std, self.std_eps),
                    partial(verdict.signed_rollouts, coef=self.right_coef),
                ),
            ),
        )
