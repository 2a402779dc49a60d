"""UFT, unified supervised and reinforcement fine-tuning (arXiv:2505.16984): a hint before all rollouts of a question.

    rollouts:  mask of PPO, pi_ref = pi_old,    A = (R - mean)/(std + e),  N = tokens
    hint:      mask 1,      pi_ref = pi_theta,  A = 1,                     N = tokens, times sft_coef

The hint is the first k of c chunks of the demonstration, c = min(chunks, its steps, or tokens where it has no steps). How k
falls over the run is `schedule`, at the share z of it:

    binomial  k ~ Binomial(c, p),  p = low + (high - low) (1 + cos(pi z / hint_until)) / 2,  0 from hint_until on
    uniform   k ~ U{0, …, c},  to the end of the run: R3, the paper's baseline, to be run with sft_coef: 0
    stage     c at first, one less in each of c + 1 equal stages, 0 from hint_until on

Read in the authors' code, by which the defaults are: 5 chunks, hints in 300 of 500 steps, coefficients of 0.001, means over
tokens. It takes those in each micro-batch, and here N is the step's; it counts steps from 1, and here they count from 0. It
may show a whole demonstration; ours leaves the last token to be sampled. KL and entropy are of sampled tokens alone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from posttrain.algorithms.options import EntropyCoefficient, GroupSize, Hybrid, KLCoefficient
from posttrain.settings.base import Count, NonNegative, Share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts import plan


class UFT(Hybrid):
    """Unified fine-tuning: RL from hints, and a likelihood of the hints."""

    beside_rollouts: ClassVar[bool] = True

    name: Literal["uft"] = "uft"
    rollouts: GroupSize = 4
    """Sampled for each question, all from the same hint."""
    schedule: Literal["binomial", "uniform", "stage"] = "binomial"
    """How many chunks are a hint: a number by chance, fewer and fewer; any number; or one fewer in each stage."""
    chunks: Count = 5
    """Of a demonstration, at most."""
    low: Share = 0.05
    """Of `binomial`: the chance of a chunk when hints end."""
    high: Share = 0.95
    """The same when the run begins."""
    hint_until: Annotated[float, Field(gt=0, le=1)] = 0.6
    """The share of the run that has hints."""
    sft_coef: NonNegative = 0.001
    """Weight of the SFT loss on hints; 0: hints carry no loss."""
    average: Literal["token", "sequence_mean"] = "token"
    """The mean of the RL part: over all sampled tokens, or over each rollout's and then over these, as in GRPO."""
    clip_low: NonNegative = 0.2
    """A token of negative advantage leaves the loss where its ratio is below 1 - this."""
    clip_high: NonNegative = 0.2
    """A token of positive advantage leaves the loss where its ratio is above 1 + this."""
    kl_coef: KLCoefficient = 0.001
    entropy_coef: EntropyCoefficient = 0.001

    def unread(self) -> Mapping[str, str]:
        """See `AlgorithmConfig`."""
        chances = dict.fromkeys(("low", "high"), "schedule: binomial")
        until = {"hint_until": "schedule: binomial, or stage"}
        more = {"binomial": {}, "stage": chances, "uniform": {**chances, **until}}
        return {**super().unread(), **more[self.schedule]}

    @model_validator(mode="after")
    def _low_is_low(self) -> UFT:
        if self.low > self.high:
            raise ValueError(f"high: the chance that a chunk is shown falls, and {self.high} is below low, {self.low}")
        return self

    def build(self) -> Algorithm:
        """Two terms over the two parts of each row."""
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
        from posttrain.estimator.parts import average, plan, select
        from posttrain.estimator.parts.credit import baseline, prefix

        per = {"token": average.token, "sequence_mean": average.sequence_mean}[self.average]
        clip = clip_mask(True, self.clip_low, self.clip_high)
        credit = group_credit(True, self.std_eps)
        return Algorithm(
            name=self.name,
            paper="arXiv:2505.16984",
            needs=needs(self, demonstration="prefix"),
            terms=(
                policy_term(self, per, mask=clip, select=select.rollouts),
                sft_term(self.sft_coef, average.token),
                *kl_terms(self.kl_coef, "k3", per, select.rollouts),
            ),
            penalties=entropy_penalties(self.entropy_coef, select.rollouts),
            credit=credit if self.sft_coef else partial(baseline.in_turn, steps=(prefix.without_loss, credit)),
            planner=partial(plan.hinted, chunks=self.chunks, count=self._count()),
        )

    def _count(self) -> plan.Count:
        from posttrain.estimator.parts import plan

        return {
            "binomial": partial(plan.binomial, low=self.low, high=self.high, until=self.hint_until),
            "uniform": plan.uniform,
            "stage": partial(plan.staged, until=self.hint_until),
        }[self.schedule]
