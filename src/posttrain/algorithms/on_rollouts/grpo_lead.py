"""GRPO-LEAD (arXiv:2504.09696): short right answers are worth more, and hard questions count more.

mask of PPO, pi_ref = pi_old, R = exp(-length · z) where right, else -1, A = w (R - mean)/(std + e) of the group, N = tokens

z is how long a right answer is among the right ones of its group, in standard deviations. w falls with the share p of right
answers where A > 0, and with 1 - p elsewhere: w(p) = least + (most - least)/(1 + exp(steepness (p - middle))). w and its
constants were read in the authors' code, the reward in others' accounts of the paper; the default of `length` is theirs.
The rewards of the recipe are not read, but for the verdict.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from posttrain.algorithms.on_rollouts._groups import Clipped, over_groups
from posttrain.settings.base import NonNegative, Positive, Share

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class GRPOLEAD(Clipped):
    """GRPO-LEAD."""

    reads_verdict = True
    reads_rewards = False

    name: Literal["grpo_lead"] = "grpo_lead"
    kl_in: Literal["loss"] = "loss"
    """The credit is made of the verdict, from which no KL can be taken."""
    length: NonNegative = 0.05
    """How fast a right answer's reward falls with its length."""
    least: NonNegative = 0.4
    """The weight of the easiest question."""
    most: NonNegative = 1.5
    """The weight of the hardest."""
    middle: Share = 0.75
    """The share of right answers half way between."""
    steepness: Positive = 10.0
    """How sharply the weight changes there."""

    @model_validator(mode="after")
    def _harder_ones_weigh_more(self) -> GRPOLEAD:
        if self.least > self.most:
            raise ValueError(f"least: {self.least:g} of the easiest question is more than most: {self.most:g} of the hardest")
        return self

    def build(self) -> Algorithm:
        """The reward of the verdict, GRPO's normalisation, the weight of the question."""
        from posttrain.estimator.parts import average, denominator
        from posttrain.estimator.parts.credit import baseline, groups

        shortened = partial(groups.short_and_right, length=self.length)
        plain = partial(baseline.group_normalised, eps=self.std_eps)
        weighted = partial(
            groups.by_difficulty, least=self.least, most=self.most, middle=self.middle, steepness=self.steepness
        )
        return over_groups(
            self,
            paper="arXiv:2504.09696",
            ratio=denominator.old,
            mask=self.clip(),
            credit=partial(baseline.in_turn, steps=(shortened, plain, weighted)),
            per=average.token,
            metrics=self.native(),
        )
