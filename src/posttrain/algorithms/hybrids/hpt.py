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
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from posttrain.algorithms.options import Hybrid
from posttrain.settings.base import Count, NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class HPT(Hybrid):
    """Hybrid post-training."""

    reads_verdict = True
    name: Literal["hpt"] = "hpt"
    gate: Annotated[int, Field(ge=-1)] = 0
    """Questions with no more right rollouts than this learn from their demonstration; -1: none does."""
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
        return self

    def build(self) -> Algorithm:
        """A gate before two terms over disjoint rows."""
        from posttrain.algorithms.terms import (
            clip_mask,
            entropy_penalties,
            group_credit,
            kl_terms,
            needs,
            policy_term,
            sft_term,
        )
        from posttrain.estimator import Algorithm
        from posttrain.estimator.parts import average, select
        from posttrain.estimator.parts.credit import baseline, gate

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
                sft_term(self.sft_coef, per_sft),
                *kl_terms(self.kl_coef, "k3", per_rollout, select.rollouts),
            ),
            penalties=entropy_penalties(self.entropy_coef),
            credit=partial(baseline.in_turn, steps=(centred, partial(gate.solved_gate, gate=self.gate))),
        )
