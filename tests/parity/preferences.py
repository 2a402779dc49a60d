"""Losses of pairs as their papers have them, for the parity tests: autograd on rows without padding, nothing of the parts.

`u`, `v`: sum of log pi - log pi_ref of the chosen and the rejected completion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from parity.rows import Row


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp x), without torch's own cut at 20."""
    return -logsigmoid(-x)


def mean_over_pairs(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def averaged(rows: Sequence[Row], **options: Any) -> Tensor:
        return torch.stack([loss(*pair, **options) for pair in zip(rows[0::2], rows[1::2], strict=True)]).mean()

    averaged.__name__ = loss.__name__
    return averaged


def ratios(chosen: Row, rejected: Row) -> tuple[Tensor, Tensor]:
    return (chosen.logp - chosen.ref).sum(), (rejected.logp - rejected.ref).sum()


def margin(chosen: Row, rejected: Row) -> Tensor:
    u, v = ratios(chosen, rejected)
    return u - v


def nll_of_tokens(rows: Sequence[Row]) -> Tensor:
    chosen = rows[0::2]
    return -torch.cat([row.logp for row in chosen]).sum() / sum(len(row) for row in chosen)


@mean_over_pairs
def dpo(chosen: Row, rejected: Row, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(beta m) (arXiv:2305.18290, eq. 7); smoothed as in Mitchell 2023 (conservative DPO), eq. 3."""
    logit = beta * margin(chosen, rejected)
    return -(1 - label_smoothing) * logsigmoid(logit) - label_smoothing * logsigmoid(-logit)


@mean_over_pairs
def ipo(chosen: Row, rejected: Row, *, beta: float = 0.1, average: str = "sum") -> Tensor:
    """(m - 1/(2 beta))² (arXiv:2310.12036, eq. 17); m of sums as in the paper, or of means as in TRL."""
    reduce = {"sum": torch.sum, "token": torch.mean}[average]
    m = reduce(chosen.logp - chosen.ref) - reduce(rejected.logp - rejected.ref)
    return (m - 1 / (2 * beta)) ** 2


@mean_over_pairs
def robust_dpo(chosen: Row, rejected: Row, *, beta: float = 0.1, flipped: float = 0.1) -> Tensor:
    """[(1 - e) l(w, l) - e l(l, w)] / (1 - 2e), l DPO's loss (arXiv:2403.00409)."""
    right, wrong = (softplus(-beta * sign * margin(chosen, rejected)) for sign in (1, -1))
    return ((1 - flipped) * right - flipped * wrong) / (1 - 2 * flipped)


@mean_over_pairs
def hinge_dpo(chosen: Row, rejected: Row, *, beta: float = 0.05) -> Tensor:
    """max(0, 1 - beta m) (arXiv:2309.06657)."""
    return torch.relu(1 - beta * margin(chosen, rejected))


@mean_over_pairs
def exo(chosen: Row, rejected: Row, *, beta: float = 0.1, label_smoothing: float = 1e-3) -> Tensor:
    """KL(p_theta || p_label) over the two completions (arXiv:2402.00856, eq. 16)."""
    policy = torch.stack([beta * ratio for ratio in ratios(chosen, rejected)]).softmax(0)
    label = torch.tensor([1 - label_smoothing, label_smoothing], dtype=policy.dtype)
    return (policy * (policy.log() - label.log())).sum()


@mean_over_pairs
def nca(chosen: Row, rejected: Row, *, beta: float = 0.01) -> Tensor:
    """-log sigmoid(r_w) - 1/2 sum over both of log sigmoid(-r) (arXiv:2402.05369)."""
    won, lost = (beta * ratio for ratio in ratios(chosen, rejected))
    return softplus(-won) + (softplus(won) + softplus(lost)) / 2


@mean_over_pairs
def bco_pair(chosen: Row, rejected: Row, *, beta: float = 0.1) -> Tensor:
    """The cross-entropy of a classifier with the logit beta · ratio (arXiv:2404.04656)."""
    u, v = ratios(chosen, rejected)
    return -torch.log(torch.sigmoid(beta * u)) - torch.log(1 - torch.sigmoid(beta * v))


@mean_over_pairs
def sppo(chosen: Row, rejected: Row, *, beta: float = 1e-3) -> Tensor:
    """(log-ratio - eta (P - 1/2))² of both, P = 1 and 0, eta = 1/beta (arXiv:2405.00675, eq. 4.7)."""
    u, v = ratios(chosen, rejected)
    return (u - (1 - 0.5) / beta) ** 2 + (v - (0 - 0.5) / beta) ** 2


@mean_over_pairs
def apo_zero(chosen: Row, rejected: Row, *, beta: float = 0.1) -> Tensor:
    """-sigmoid(r_w) + sigmoid(r_l), and a constant (arXiv:2408.06266, eq. 7)."""
    u, v = ratios(chosen, rejected)
    return 1 - torch.sigmoid(beta * u) + torch.sigmoid(beta * v)


@mean_over_pairs
def apo_down(chosen: Row, rejected: Row, *, beta: float = 0.1) -> Tensor:
    """sigmoid(r_w) - sigmoid(r_w - r_l), and a constant (arXiv:2408.06266, eq. 8)."""
    u, v = ratios(chosen, rejected)
    return torch.sigmoid(beta * u) + 1 - torch.sigmoid(beta * (u - v))


@mean_over_pairs
def discopop(chosen: Row, rejected: Row, *, beta: float = 0.05, tau: float = 0.05) -> Tensor:
    """(1 - k) logistic + k exponential loss, k = sigmoid(z / tau) (arXiv:2406.08414, eq. 5)."""
    z = beta * margin(chosen, rejected)
    k = torch.sigmoid(z / tau)
    return softplus(-z) * (1 - k) + torch.exp(-z) * k


@mean_over_pairs
def dpop(chosen: Row, rejected: Row, *, beta: float = 0.3, penalty: float = 50.0) -> Tensor:
    """-log sigmoid(beta (m - lambda max(0, log pi_ref/pi of the chosen))) (arXiv:2402.13228)."""
    lost = torch.relu((chosen.ref - chosen.logp).sum())
    return softplus(-beta * (margin(chosen, rejected) - penalty * lost))


@mean_over_pairs
def r_dpo(chosen: Row, rejected: Row, *, beta: float = 0.1, length_coef: float = 0.01) -> Tensor:
    """-log sigmoid(beta m + alpha (|y_w| - |y_l|)) (arXiv:2403.19159; the sign: see the test of what it removes)."""
    return softplus(-(beta * margin(chosen, rejected) + length_coef * (len(chosen) - len(rejected))))


@mean_over_pairs
def ln_dpo(chosen: Row, rejected: Row, *, beta: float = 5.0) -> Tensor:
    """DPO of means over tokens (arXiv:2411.15124)."""
    return softplus(-beta * ((chosen.logp - chosen.ref).mean() - (rejected.logp - rejected.ref).mean()))


@mean_over_pairs
def ld_dpo(chosen: Row, rejected: Row, *, beta: float = 0.1, alpha: float = 0.5) -> Tensor:
    """DPO where tokens past the shorter completion's length count alpha (arXiv:2409.06411)."""
    shorter = min(len(chosen), len(rejected))

    def weighted(row: Row) -> Tensor:
        return (row.logp - row.ref)[:shorter].sum() + alpha * (row.logp - row.ref)[shorter:].sum()

    return softplus(-beta * (weighted(chosen) - weighted(rejected)))


@mean_over_pairs
def f_dpo(chosen: Row, rejected: Row, *, beta: float = 0.1, divergence: str = "forward_kl", alpha: float = 0.5) -> Tensor:
    """-log sigmoid(beta (f'(pi/ref of y_w) - f'(the same of y_l))) (arXiv:2309.16240, table 1)."""

    def slope(ratio: Tensor) -> Tensor:
        t = ratio.exp()
        return {
            "reverse_kl": torch.log(t),
            "forward_kl": 1 - 1 / t,
            "js": torch.log(2 * t / (1 + t)),
            "alpha": (t ** (alpha - 1) - 1) / (alpha - 1),
        }[divergence]

    u, v = ratios(chosen, rejected)
    return softplus(-beta * (slope(u) - slope(v)))


def rpo(rows: Sequence[Row], *, beta: float = 0.1, sft_coef: float = 1.0, sft_average: str = "sequence_mean") -> Tensor:
    """DPO + alpha · NLL / |y| of what is chosen (arXiv:2404.19733); NLL over tokens in TRL."""
    means = torch.stack([-row.logp.mean() for row in rows[0::2]]).mean()
    return dpo(rows, beta=beta) + sft_coef * (means if sft_average == "sequence_mean" else nll_of_tokens(rows))


@mean_over_pairs
def simpo_alone(chosen: Row, rejected: Row, *, beta: float, gamma: float) -> Tensor:
    return softplus(-(beta / len(chosen) * chosen.logp.sum() - beta / len(rejected) * rejected.logp.sum() - gamma))


def simpo(rows: Sequence[Row], *, beta: float = 2.0, gamma: float = 1.0, sft_coef: float = 0.0) -> Tensor:
    """-log sigmoid(beta/|y_w| log pi(y_w) - beta/|y_l| log pi(y_l) - gamma) (arXiv:2405.14734, eq. 6)."""
    return simpo_alone(rows, beta=beta, gamma=gamma) + sft_coef * nll_of_tokens(rows)


@mean_over_pairs
def alpha_po(chosen: Row, rejected: Row, *, beta: float = 2.0, gamma: float = 1.0, alpha: float = 0.25) -> Tensor:
    """SimPO of the reward (1 - p^(-alpha)) / alpha, p the geometric mean of the tokens' (arXiv:2501.03884)."""
    won, lost = ((1 - row.logp.mean().exp() ** -alpha) / alpha for row in (chosen, rejected))
    return softplus(-(beta * (won - lost) - gamma))


@mean_over_pairs
def contrast(chosen: Row, rejected: Row, *, beta: float) -> Tensor:
    return softplus(-beta * (chosen.logp.sum() - rejected.logp.sum()))


def cpo(rows: Sequence[Row], *, beta: float = 0.1, sft_coef: float = 1.0) -> Tensor:
    """-log sigmoid(beta (log pi(y_w) - log pi(y_l))) + NLL(y_w) (arXiv:2401.08417, eq. 3 and 4)."""
    return contrast(rows, beta=beta) + sft_coef * nll_of_tokens(rows)


@mean_over_pairs
def wpo(chosen: Row, rejected: Row, *, beta: float = 0.1) -> Tensor:
    """-w(y_w) w(y_l) log sigmoid(beta m), w = exp(1/|y| sum of log pi(y_t) - log sum_v pi(v)^2), no gradient
    (arXiv:2406.11827, eq. 2)."""
    weights = [(row.logp - row.collision).mean().detach().exp() for row in (chosen, rejected)]
    return weights[0] * weights[1] * softplus(-beta * margin(chosen, rejected))


def tpo(
    rows: Sequence[Row], *, beta: float = 0.01, average: str = "sum", gamma: float = 0.0, sft_coef: float = 1.0
) -> Tensor:
    """-log sigmoid(beta (log pi(y_w) - log pi(y_l))) + alpha NLL(y_gold), its L form with means over tokens and a margin
    (arXiv:2405.16681)."""
    losses = []
    for chosen, rejected in zip(rows[0::3], rows[1::3], strict=True):
        w, v = (row.logp.mean() if average == "token" else row.logp.sum() for row in (chosen, rejected))
        losses.append(softplus(gamma - beta * (w - v)))
    return torch.stack(losses).mean() - sft_coef * torch.cat([row.logp for row in rows[2::3]]).mean()


@mean_over_pairs
def odds_ratio(chosen: Row, rejected: Row) -> Tensor:
    won, lost = (row.logp.mean().exp() for row in (chosen, rejected))
    return -torch.log(torch.sigmoid(torch.log((won / (1 - won)) / (lost / (1 - lost)))))


def orpo(rows: Sequence[Row], *, odds_coef: float = 0.1) -> Tensor:
    """NLL(y_w) - lambda log sigmoid(log(odds(y_w) / odds(y_l))) (arXiv:2403.07691, eq. 4, 6 and 7)."""
    return nll_of_tokens(rows) + odds_coef * odds_ratio(rows)


@mean_over_pairs
def rank(chosen: Row, rejected: Row, *, delta: float) -> Tensor:
    return torch.relu(delta - chosen.logp.sum() + rejected.logp.sum())


def slic(rows: Sequence[Row], *, delta: float = 1.0, sft_coef: float = 0.1) -> Tensor:
    """max(0, delta - log pi(y_w) + log pi(y_l)) - lambda log pi(y_w) (arXiv:2305.10425)."""
    return rank(rows, delta=delta) + sft_coef * nll_of_tokens(rows)


def kto(
    rows: Sequence[Row], *, beta: float = 0.1, desirable: float = 1.0, undesirable: float = 1.0, anchor: str = "mismatched"
) -> Tensor:
    """lambda_y - v(x, y), v = lambda_D sigmoid(beta (r - z0)) or lambda_U sigmoid(beta (z0 - r)) (arXiv:2402.01306, eq. 7
    and 8), over rows that have a token; z0 is of the step."""
    losses = []
    for row in rows:
        if len(row):
            gain = (row.logp - row.ref).sum() - (row.anchor if anchor == "mismatched" else 0.0)
            wanted = float(row.weight[0]) > 0
            scale = desirable if wanted else undesirable
            losses.append(scale - scale * torch.sigmoid(beta * (gain if wanted else -gain)))
    return torch.stack(losses).mean()


def bco(rows: Sequence[Row], *, beta: float = 0.1, decay: float = 0.9) -> Tensor:
    """-log sigmoid(r - delta) of what is wanted, -log sigmoid(-(r - delta)) of what is not (arXiv:2404.04656), over rows that
    have a token; delta = beta · anchor is of the step.
    """
    del decay
    losses = []
    for row in rows:
        if len(row):
            logit = beta * (row.logp - row.ref).sum() - beta * row.anchor
            losses.append(-torch.nn.functional.logsigmoid(logit if float(row.weight[0]) > 0 else -logit))
    return torch.stack(losses).mean()


def sami(rows: Sequence[Row], *, principles: int = 2) -> Tensor:
    """1/2 of both cross-entropies of the matrix of mean log-probs with its diagonal (arXiv:2404.14313), over questions."""
    k, losses = principles, []
    for first in range(0, len(rows), k * k):
        table = torch.stack([torch.stack([rows[first + k * i + j].logp.mean() for j in range(k)]) for i in range(k)])
        losses.append((cross_entropy(table, torch.arange(k)) + cross_entropy(table.T, torch.arange(k))) / 2)
    return torch.stack(losses).mean()


PREFERENCES: dict[str, Callable[..., Tensor]] = {
    paper.__name__: paper
    for paper in (
        dpo, ipo, robust_dpo, hinge_dpo, exo, nca, bco_pair, sppo, apo_zero, apo_down, discopop, dpop, r_dpo, ln_dpo,
        ld_dpo, f_dpo, rpo, simpo, alpha_po, cpo, orpo, slic, wpo, tpo, kto, bco, sami,
    )
}  # fmt: skip

AGREEING = {
    "dpo": math.log(2),
    "dpo-smoothed": math.log(2),
    "ipo": 25.0,
    "robust_dpo": math.log(2),
    "hinge_dpo": 1.0,
    "nca": 2 * math.log(2),
    "bco_pair": 2 * math.log(2),
    "sppo": 2 * 500.0**2,
    "apo_zero": 1.0,
    "apo_down": 1.0,
    "discopop": (math.log(2) + 1) / 2,
    "dpop": math.log(2),
}
"""The loss where policy and reference agree."""
