"""Native objectives and other quantities to watch, without gradient; the caller averages them over the N of their term.

The value of the surrogate is not the paper's loss (for DPO it is not -log sigmoid); these are. [B, T] results are
averaged like the term's own tokens; [P, 1] results have one value for each of the P pairs.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.batch import MAX_LOG_RATIO
from posttrain.estimator.view import View, counted, row_mean, row_sum


def nll(view: View) -> Float[Tensor, "B T"]:
    """-log p of the token."""
    return -view.logp


def weighted_nll(view: View) -> Float[Tensor, "B T"]:
    """-A log p of the token: what advantages that know nothing of the policy descend."""
    return -view.require("advantage") * view.logp


def of_its_complement(view: View) -> Float[Tensor, "B T"]:
    """-log(1 - p) of the token."""
    return -(-view.logp.expm1()).clamp(min=torch.finfo(view.logp.dtype).tiny).log()


def each_logp(view: View) -> Float[Tensor, "B T"]:
    """log p of the token: of the row, where a term adds up its tokens."""
    return view.logp


def missed_probability(view: View) -> Float[Tensor, "B T"]:
    """1 - p of the token: what a denominator of 1 and an advantage of 1 descend."""
    return 1 - view.logp.exp()


def preference_margin(view: View) -> Float[Tensor, "P 1"]:
    """m of each pair, in nats: the chosen row's sum of logp - ref_logp, less the rejected row's."""
    rows = row_sum(view, view.logp - view.require("ref_logp"))
    return _gap(view, rows)


def preference_accuracy(view: View) -> Float[Tensor, "P 1"]:
    """1 where the policy, against the reference, prefers the chosen completion (m > 0); a tie counts one half."""
    margin = preference_margin(view)
    return _of_counted(view, (margin > 0).to(margin.dtype) + 0.5 * (margin == 0).to(margin.dtype))


def raw_accuracy(view: View) -> Float[Tensor, "P 1"]:
    """1 where the policy itself gives the chosen completion more probability, whatever the reference; ties one half."""
    gap = _gap(view, row_sum(view, view.logp))
    return _of_counted(view, (gap > 0).to(gap.dtype) + 0.5 * (gap == 0).to(gap.dtype))


def chosen_logp(view: View) -> Float[Tensor, "P 1"]:
    """log p of the chosen completion: DPO may lower it while the margin grows."""
    return row_sum(view, view.logp)[0 :: view.unit]


def kl_to_reference(view: View) -> Float[Tensor, "B T"]:
    """exp(d) - d - 1, d = ref_logp - logp: the k3 estimate of KL(pi || ref) (Schulman 2020)."""
    gap = (view.require("ref_logp") - view.logp).clamp(max=MAX_LOG_RATIO)
    return gap.exp() - gap - 1


def kl_to_teacher(view: View) -> Float[Tensor, "B T"]:
    """logp - teacher_logp: on what the policy samples, the k1 estimate of KL(pi || teacher)."""
    return view.logp - view.require("teacher_logp")


def squared_rest(view: View, *, beta: float) -> Float[Tensor, "B 1"]:
    """(beta m - A)², m the row's sum of logp - ref_logp, A the batch's own advantage of the row."""
    advantage = row_mean(view, view.require("advantage"))
    return (beta * row_sum(view, view.logp - view.require("ref_logp")) - advantage) ** 2


def clipped_surrogate(view: View, *, low: float, high: float, dual: float | None) -> Float[Tensor, "B T"]:
    """-min(r A, clip(r, 1 - low, 1 + high) A), for A < 0 no more than -dual · A (arXiv:1707.06347, eq. 7)."""
    ratio, advantage = (view.logp - view.old_logp).clamp(max=MAX_LOG_RATIO).exp(), view.require("advantage")
    clipped = torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
    return -clipped if dual is None else -torch.where(advantage < 0, clipped.clamp(min=dual * advantage), clipped)


def _of_counted(view: View, values: Float[Tensor, "P 1"]) -> Float[Tensor, "P 1"]:
    """0 for a pair without a selected token, which is not in N: the fill row of a rank without rows."""
    return torch.where(counted(view), values, 0.0)


def _gap(view: View, rows: Float[Tensor, "B 1"]) -> Float[Tensor, "P 1"]:
    return rows[0 :: view.unit] - rows[1 :: view.unit]
