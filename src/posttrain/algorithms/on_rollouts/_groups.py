"""What GRPO and its kin share: policy gradients with a baseline from the question's own group.

    ratio r_t = pi_theta / pi_old, advantage A of the group, mask of PPO; they differ in these places only:

    | name    | ratio                | clip            | advantage             | average           | paper      |
    | grpo    | token                | 0.2 / 0.2       | (R - mean)/(std + e)  | sequence mean     | 2402.03300 |
    | dr_grpo | token                | 0.2 / 0.2       | R - mean              | rows × max_tokens | 2503.20783 |
    | dapo    | token                | 0.2 / 0.28      | as grpo               | token             | 2503.14476 |
    | gspo    | row, geometric mean  | 3e-4 / 4e-4     | as grpo               | sequence mean     | 2507.18071 |
    | cispo   | min(r, 1 + high)     | none, a weight  | as grpo               | token             | 2506.13585 |
    | gmpo    | row, of bounded ones | 0.4 of log r    | as grpo               | sequence mean     | 2507.20673 |
    | sapo    | token, fading        | none            | as grpo               | sequence mean     | 2511.20347 |
    | dppo    | min(r, 20)           | of p or of KL   | as grpo               | token             | 2602.04879 |
    | vespo   | row, shaped          | none            | as grpo               | token             | 2602.10693 |
    | gpg     | none                 | none            | R - mean, scaled up   | token             | 2504.02546 |
    | dro     | none                 | none            | A, drift pulled back  | token             | 2405.19107 |

The clip acts only with several updates a collection. kl_coef · KL(pi || start) in the loss is the k3 estimate of GRPO's
eq. 4, or k2; with `kl_in: reward`, k1 is taken out of the reward instead.
"""

from __future__ import annotations

from abc import ABC
from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnGroups
from posttrain.settings.base import Config, NonNegative

if TYPE_CHECKING:
    from collections.abc import Callable

    from posttrain.estimator import Algorithm, Batch, Mask, Metric, Part, Term
    from posttrain.estimator.parts.average import Average


class Clip(Config):
    """Options of PPO's clip."""

    clip_low: NonNegative = 0.2
    """A token of negative advantage leaves the loss where its ratio is below 1 - this."""
    clip_high: NonNegative = 0.2
    """A token of positive advantage leaves the loss where its ratio is above 1 + this."""

    def clip(self, dual: float | None = None) -> Mask:
        """PPO's mask."""
        from posttrain.algorithms.terms import clip_mask

        return clip_mask(True, self.clip_low, self.clip_high, dual)

    def native(self, dual: float | None = None) -> tuple[Metric, ...]:
        """PPO's own objective, to watch."""
        from posttrain.estimator import Metric
        from posttrain.estimator.parts import metric

        clipped = partial(metric.clipped_surrogate, low=self.clip_low, high=self.clip_high, dual=dual)
        return (Metric("objective/clipped", clipped),)


class Clipped(Clip, OnGroups, ABC):
    """PPO's clip, and a group's baseline."""


def over_groups(
    config: OnGroups,
    *,
    paper: str,
    ratio: Part,
    mask: Mask,
    credit: Callable[[Batch], Batch],
    per: Average,
    metrics: tuple[Metric, ...] = (),
    beside: tuple[Term, ...] = (),
    scope: Literal["token", "sequence"] = "token",
    resample: bool = False,
    old_logp: bool = False,
    collected_entropy: Literal["none", "rows"] = "none",
) -> Algorithm:
    """The table's row that these parts make, and terms beside it, with the config's KL, entropy bonus, correction and mask of
    stale rows.
    """
    from posttrain.algorithms.terms import entropy_penalties, kl_terms, less_kl, needs, policy_term
    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts.mask import fresh_rows

    in_reward = config.kl_in == "reward"
    if config.off_policy_mask is not None:
        mask, scope = partial(fresh_rows, limit=config.off_policy_mask, mask=mask), "sequence"
    policy = policy_term(config, per, mask=mask, denominator=ratio, metrics=metrics)
    return Algorithm(
        name=config.name,
        paper=paper,
        needs=needs(
            config,
            scope=scope,
            kl_in_reward=in_reward,
            resample=resample,
            old_logp=old_logp,
            collected_entropy=collected_entropy,
        ),
        terms=(policy, *beside, *(() if in_reward else kl_terms(config.kl_coef, config.kl or "k3", per))),
        penalties=entropy_penalties(config.entropy_coef),
        credit=less_kl(config.kl_coef, credit) if in_reward else credit,
    )
