"""Tapered off-policy REINFORCE (arXiv:2503.14286): wrong answers count the less the less likely they have become.

mask 1, ratio 1 where A >= 0, else min(pi(y)/pi_old(y), 1), A = R - baseline, N = rows, s = 1 (or 1/|y|)

Right answers are imitated whatever their ratio, as in SFT. The paper's rewards are 1 and -1; for 0 and 1 set a baseline
between them, or nothing is pushed down. With `old: sampler` pi_old is whoever sampled. Equations from notes that quote
the paper's 7 and 8, and Trinity-RFT's code, which tapers tokens and not rows.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.on_rollouts._row_action import row_action
from posttrain.algorithms.options import OnRollouts

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class TOPR(OnRollouts):
    """Tapered off-policy REINFORCE."""

    whole_rows = True

    name: Literal["topr"] = "topr"
    baseline: float = 0.0
    """Taken from every reward: answers below it are pushed down."""
    average: Literal["sequence_sum", "sequence_mean"] = "sequence_sum"
    """A row counts by its tokens, or as one, as in the paper's experiments."""

    def build(self) -> Algorithm:
        """The taper is the row's."""
        from posttrain.estimator.parts import average, denominator, mask
        from posttrain.estimator.parts.credit import baseline

        per = {"sequence_sum": average.sequence_sum, "sequence_mean": average.sequence_mean}[self.average]
        credit = partial(baseline.above, level=self.baseline)
        return row_action(
            self, "arXiv:2503.14286", credit=credit, ratio=denominator.tapered, mask=mask.keep, per=per, scope="sequence"
        )
