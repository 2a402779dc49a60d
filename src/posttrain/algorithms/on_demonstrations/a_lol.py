"""A-LoL, advantage-based leftover-lunch RL (Baheti et al. 2023, arXiv:2305.14718), and what it is held against.

A whole answer is one action, whose reward is known before training; A = R - V, V the mean reward of the start model's
answers to the prompt. mask 1, N = rows, s = 1; answers of A <= 0 leave the loss, and N.

    | form       | ratio pi_theta / pi_ref, a weight              | advantage |
    | a_lol      | clip(exp(sum_t (logp - start)), 1 - e, 1 + e)   | A         |
    | a_lol_seq  | clip(exp(logp - start), 1 - e, 1 + e)           | A         |
    | a_lol_free | 1                                               | A         |
    | a_lol_kl   | 1                                               | A - kl_coef |
    | r_lol      | as a_lol                                        | R, of all |
    | wbc        | 1: weighted behaviour cloning                   | R, of all |
    | r_gold     | max(p, floor)                                   | R, of all |

Read in the authors' code. a_lol_kl is as coded, where the KL's estimate is of the data and so a constant in the
advantage; the paper gives no value for its coefficient that could be read: the default is ours. Of a long answer the
ratio of a_lol is at one of its bounds nearly always. Sampling rows by their advantage, as the authors do, is the order of
the data and not of this file. Advantages are the column advantage, or reward less value, or reward less the mean of the
prompt's rows (see docs/data.md).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from posttrain.algorithms.options import OnDemonstrations
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm

Form = Literal["a_lol", "a_lol_seq", "a_lol_free", "a_lol_kl", "r_lol", "wbc", "r_gold"]
_READ_BY: dict[str, tuple[Form, ...]] = {
    "clip": ("a_lol", "a_lol_seq", "r_lol"),
    "kl_coef": ("a_lol_kl",),
    "floor": ("r_gold",),
}


class ALoL(OnDemonstrations):
    """Advantage-based leftover-lunch RL: rewarded answers as data."""

    name: Literal["a_lol"] = "a_lol"
    form: Form = "a_lol"
    """Which of the paper's losses."""
    clip: Annotated[float, Field(gt=0, le=1)] = 0.9
    """How far the ratio to the start model may be from 1, as a weight."""
    kl_coef: NonNegative = 0.1
    """Taken from every advantage, of a_lol_kl."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The least weight of a token, of r_gold."""

    def unread(self) -> dict[str, str]:
        """See `AlgorithmConfig`."""
        return {option: f"form: {' or '.join(forms)}" for option, forms in _READ_BY.items() if self.form not in forms}

    def build(self) -> Algorithm:
        """SFT's row with a bounded ratio, and the data's advantages."""
        from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term, row_sum
        from posttrain.estimator.parts import advantage, average, denominator, metric
        from posttrain.estimator.parts.credit import weight

        bounds: Any = {"low": 1 - self.clip, "high": 1 + self.clip}
        of_row = partial(denominator.reference_clipped, level=row_sum, **bounds)
        of_token = partial(denominator.reference_clipped, level=denominator.each, **bounds)
        ratios = {
            "a_lol": of_row,
            "r_lol": of_row,
            "a_lol_seq": of_token,
            "r_gold": partial(denominator.floored, least=self.floor),
        }
        compares, rewards = self.form in _READ_BY["clip"], self.form in ("r_lol", "wbc", "r_gold")
        better = partial(weight.positive, less=self.kl_coef) if self.form == "a_lol_kl" else weight.positive
        return Algorithm(
            name=self.name,
            paper="arXiv:2305.14718",
            needs=Needs(
                scope="sequence" if self.form in ("a_lol", "r_lol") else "token",
                demonstration="row",
                weight="reward" if rewards else "advantage",
                ref_logp=compares,
            ),
            terms=(
                Term(
                    name="a_lol",
                    estimator=Estimator(denominator=ratios.get(self.form, denominator.current), advantage=advantage.given),
                    average=average.sequence_sum,
                    metrics=(Metric("objective/weighted_nll", metric.weighted_nll),),
                ),
            ),
            credit=weight.as_given if rewards else better,
        )
