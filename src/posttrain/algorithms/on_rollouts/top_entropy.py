"""The 80/20 rule (arXiv:2506.01939): only the tokens at which the policy was most undecided are learnt from.

mask of PPO with 0.2 / 0.28, pi_ref = pi_old, A = (R - mean)/(std + e) of the group on the `keep` share of tokens of highest
collected entropy, 0 on the others, N = all tokens

The threshold is one for the whole collection, of the collecting policy: TRL's is of the current one, over a micro-batch of
all processes. Base as DAPO without dynamic sampling. Read in TRL's code.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from posttrain.algorithms.on_rollouts._groups import Clipped, over_groups
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class TopEntropy(Clipped):
    """Only the most undecided tokens are learnt from."""

    measures_tokens = True

    name: Literal["top_entropy"] = "top_entropy"
    clip_high: NonNegative = 0.28
    keep: Annotated[float, Field(gt=0, le=1)] = 0.2
    """The share of tokens that is learnt from."""

    def build(self) -> Algorithm:
        """DAPO's row; the entropies are made once, with the collection."""
        from posttrain.estimator.parts import average, denominator, select
        from posttrain.estimator.parts.credit import baseline, tokens

        plain = partial(baseline.group_normalised, eps=self.std_eps)
        undecided = partial(tokens.most_uncertain, keep=self.keep, among=select.everything)
        return over_groups(
            self,
            paper="arXiv:2506.01939",
            ratio=denominator.old,
            mask=self.clip(),
            credit=partial(baseline.in_turn, steps=(plain, undecided)),
            per=average.token,
            metrics=self.native(),
            collected_entropy="rows",
        )
