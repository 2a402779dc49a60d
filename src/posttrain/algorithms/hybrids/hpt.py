"""Hybrid post-training (arXiv:2509.04419): for each question either RL on its rollouts, or SFT on its demonstration.

    right rollouts > gate:  mask of PPO or 1, pi_ref = pi_old,    A = R - mean,  N = rows × max_tokens
    else:                   mask 1,           pi_ref = pi_theta,  A = 1,         N = tokens, times sft_coef

The gate is a count of right rollouts: 0 for strong bases, 2 of 8 for weak ones. Each part has its own N. What is printed and
what was run differ; the defaults are the code's, by which the paper's numbers were made:

    |             | paper         | its code |
    | clip        | true          | false    |
    | std         | true          | false    |
    | sft_average | sequence_mean | token    |

The code divides the RL part by max_tokens and not by the rows, and the SFT part by the tokens of each micro-batch, summed.

Two other gates are in that code, read there; the paper's figures of the second are below its own gate's. (alpha, beta) is the
paper's notation of all of them: alpha · RL + beta · SFT.

    coefficients:  (alpha, beta) for 0, 1, … right rollouts. The code's, for 7: (0, 1) (1/8, 1/2) (1/4, 1/4) (1/2, 1/8), then
                   (1, 0); it prepares them, and the loss that was published with it does not read them. Its default table has
                   a third column, off-policy RL on the demonstration beside SFT, which is not offered.
    gate_off:      up to gate SFT; up to gate_off RL on the demonstration: pi_ref such that the ratio is that of LUFFY's
                   p / (p + gamma), A = R, N = rows × max_tokens, times off_coef; above it RL on the rollouts
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from posttrain.algorithms.options import Hybrid
from posttrain.settings.base import Count, NonNegative, Positive

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from posttrain.estimator import Algorithm, Batch, Term
    from posttrain.estimator.parts.average import Average


class HPT(Hybrid):
    """Hybrid post-training."""

    reads_verdict = True
    beside_rollouts: ClassVar[bool] = True

    name: Literal["hpt"] = "hpt"
    gate: Annotated[int, Field(ge=-1)] = 0
    """Questions with no more right rollouts than this learn from their demonstration; -1: none does."""
    gate_off: Annotated[int, Field(ge=0)] | None = None
    """Questions with more right rollouts than `gate`, and no more than this, learn from their demonstration by off-policy RL;
    none do if not set."""
    off_coef: NonNegative = 1.0
    """Weight of the off-policy RL."""
    gamma: Positive = 0.1
    """Of the off-policy RL: a demonstrated token's gradient is that of p / (p + gamma), p its probability."""
    coefficients: tuple[tuple[NonNegative, NonNegative], ...] | None = None
    """In place of the gate: for each number of right rollouts, from 0 on, the weights of RL and of SFT."""
    sft_coef: NonNegative = 1.0
    """Weight of the SFT loss."""
    sft_average: Literal["token", "sequence_mean"] = "token"
    """The SFT loss's mean: over all tokens, or over each demonstration's and then over these."""
    clip: bool = False
    """PPO's clip on the rollouts."""
    clip_low: NonNegative = 0.2
    """A token of negative advantage leaves the loss where its ratio is below 1 - this."""
    clip_high: NonNegative = 0.2
    """A token of positive advantage leaves the loss where its ratio is above 1 + this."""
    std: bool = False
    """Divide advantages by the standard deviation of the group's rewards, as GRPO does."""
    max_tokens: Count
    """The constant length in N of the RL part. The recipe fills it from `rollout.max_tokens`."""

    @model_validator(mode="after")
    def _gate_is_a_count(self) -> HPT:
        if self.gate > self.rollouts:
            raise ValueError(f"gate: it is a count of right rollouts, and there are {self.rollouts}")
        if self.gate_off is not None and not self.gate < self.gate_off <= self.rollouts:
            raise ValueError(f"gate_off: it is a count of right rollouts above gate, {self.gate}, and up to {self.rollouts}")
        if self.coefficients is not None and len(self.coefficients) != self.rollouts + 1:
            raise ValueError(
                f"coefficients: a pair for each number of right rollouts, 0 to {self.rollouts}, is needed, "
                f"{self.rollouts + 1} in all, and there are {len(self.coefficients)}"
            )
        if self.coefficients is not None and not any(map(any, self.coefficients)):
            raise ValueError("coefficients: all are 0, and nothing would be learnt")
        return self

    def unread(self) -> Mapping[str, str]:
        """See `AlgorithmConfig`."""
        gates = dict.fromkeys(("gate", "gate_off"), "coefficients: null") if self.coefficients is not None else {}
        off = {} if self.gate_off is not None else dict.fromkeys(("off_coef", "gamma"), "gate_off")
        return {**super().unread(), **off, **gates}

    def build(self) -> Algorithm:
        """A gate before two terms over disjoint rows, or three."""
        from posttrain.algorithms.terms import clip_mask, entropy_penalties, group_credit, kl_terms, needs, policy_term
        from posttrain.estimator import Algorithm
        from posttrain.estimator.parts import average, select
        from posttrain.estimator.parts.credit import baseline

        per_sft = {"token": average.token, "sequence_mean": average.sequence_mean}[self.sft_average]
        per_rollout = average.constant(self.max_tokens)
        centred = partial(baseline.of_rollouts, credit=group_credit(self.std, self.std_eps))
        clip = clip_mask(self.clip, self.clip_low, self.clip_high)
        return Algorithm(
            name=self.name,
            paper="arXiv:2509.04419",
            needs=needs(self, demonstration="row"),
            terms=(
                policy_term(self, per_rollout, mask=clip, select=select.rollouts),
                *self._of_demonstrations(per_sft, per_rollout),
                *kl_terms(self.kl_coef, "k3", per_rollout, select.rollouts),
            ),
            penalties=entropy_penalties(self.entropy_coef),
            credit=partial(baseline.in_turn, steps=(centred, self._gate())),
        )

    def _gate(self) -> Callable[[Batch], Batch]:
        from posttrain.estimator.parts.credit import gate

        if self.coefficients is not None:
            return partial(gate.soft_gate, coefficients=self.coefficients)
        if self.gate_off is not None:
            return partial(gate.mixed_gate, gate=self.gate, gate_off=self.gate_off)
        return partial(gate.solved_gate, gate=self.gate)

    def _of_demonstrations(self, per_sft: Average, per_rollout: Average) -> tuple[Term, ...]:
        from posttrain.algorithms.terms import sft_term
        from posttrain.estimator import Estimator, Term
        from posttrain.estimator.parts import advantage, denominator, select

        if self.coefficients is not None:
            return (sft_term(self.sft_coef, per_sft, Estimator(denominator=denominator.current, advantage=advantage.given)),)
        if self.gate_off is None:
            return (sft_term(self.sft_coef, per_sft),)
        shaped = partial(denominator.shaped, gamma=self.gamma)
        off = Term(
            name="off_policy",
            estimator=Estimator(denominator=shaped, advantage=advantage.given),
            average=per_rollout,
            select=select.marked_demonstrations,
            coef=self.off_coef,
        )
        return (sft_term(self.sft_coef, per_sft, select=select.unmarked_demonstrations), off)
