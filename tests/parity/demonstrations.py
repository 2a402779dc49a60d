"""Naive losses over demonstrations, each from its paper."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from parity.rows import Row, clipped, row_mean, token_mean


def sft(rows: list[Row], *, weights: str = "unread", kl_coef: float = 0.0) -> Tensor:
    """-log p, a mean over tokens; with weights their weighted sum, over the tokens or over the sum of the weights
    (arXiv:2412.15495), and a coefficient times KL(pi_start || pi)."""
    if weights == "unread":
        return token_mean(rows, [-row.logp for row in rows]) + kl_coef * token_mean(rows, [anchor(row) for row in rows])
    total = torch.cat([row.weight * -row.logp for row in rows]).sum()
    return total / sum(len(row) if weights == "per_token" else row.weight.abs().sum() for row in rows)


def anchor(row: Row) -> Tensor:
    """KL(pi_start || pi) over the whole vocabulary, at every token."""
    return (row.reference.exp() * (row.reference - row.policy)).sum(-1)


def dft(rows: list[Row], *, sft_coef: float = 0.0) -> Tensor:
    """-sg(p) log p (arXiv:2508.05629, eq. 9), and a coefficient times -log p."""
    return token_mean(rows, [-(row.logp.exp().detach() + sft_coef) * row.logp for row in rows])


def asft(rows: list[Row], *, kl_coef: float = 0.05, sft_coef: float = 0.0) -> Tensor:
    """DFT + coefficient · KL(pi_start || pi), over the whole vocabulary at every token (arXiv:2509.23753)."""
    return dft(rows, sft_coef=sft_coef) + kl_coef * token_mean(rows, [anchor(row) for row in rows])


def iw_sft(rows: list[Row], *, exponent: float = 1.0, max_weight: float = 16.0) -> Tensor:
    """-sg(min((pi(y)/pi_ref(y))^(exponent/|y|), 16)) log p (arXiv:2507.12856, as its official code has it)."""
    weight = [(exponent * (row.logp - row.ref).mean()).exp().clamp(max=max_weight).detach() for row in rows]
    return token_mean(rows, [-w * row.logp for w, row in zip(weight, rows, strict=True)])


def psft(rows: list[Row], *, clip_low: float = 0.2, clip_high: float = 0.28) -> Tensor:
    """-min(r, clip(r)) (arXiv:2508.17784)."""
    return token_mean(rows, [-clipped(row, row.logp - row.old, 1.0, clip_low, clip_high) for row in rows])


def f_sft(rows: list[Row], *, divergence: str = "chi2", beta: float = 0.1, guard: float = 0.1) -> Tensor:
    """The loss of the implicit reward q = beta (logp - ref) by an f-divergence (arXiv:2507.00018; formulas derived); beyond
    the guard a straight line."""
    loss = {
        "tv": lambda q: -q,
        "chi2": lambda q: -q + q**2 / 4,
        "hellinger": lambda q: -q / (1 + q),
        "kl": lambda q: (-q - 1).exp(),
        "js": lambda q: -(2 - (-q).exp()).log(),
    }[divergence]
    end = {"hellinger": -1.0, "js": -math.log(2)}.get(divergence)
    losses = []
    for row in rows:
        q = beta * (row.logp - row.ref)
        inside = loss(q if end is None else q.clamp(min=end + guard))
        if end is None:
            losses.append(inside)
            continue
        edge = torch.tensor(end + guard, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(edge), edge)
        losses.append(torch.where(q > end + guard, inside, slope * q))
    return token_mean(rows, losses)


def a_lol(rows: list[Row], *, form: str = "a_lol", clip: float = 0.9, kl_coef: float = 0.1, floor: float = 0.1) -> Tensor:
    """Of answers, means over those that stay in, of summed log-probs (arXiv:2305.14718 and its authors' code)."""
    worth = {id(row): float(row.weight[0]) if len(row) else 0.0 for row in rows}
    kept = [row for row in rows if len(row)]
    if form.startswith("a_lol"):
        kept = [row for row in kept if worth[id(row)] > 0]
    losses = []
    for row in kept:
        gap, nll = (row.logp - row.ref).detach(), -row.logp
        factor = {
            "a_lol": lambda gap=gap: gap.sum().exp().clamp(1 - clip, 1 + clip),
            "r_lol": lambda gap=gap: gap.sum().exp().clamp(1 - clip, 1 + clip),
            "a_lol_seq": lambda gap=gap: gap.exp().clamp(1 - clip, 1 + clip),
            "r_gold": lambda row=row: row.logp.detach().exp().clamp(min=floor),
        }.get(form, lambda: 1.0)()
        extra = kl_coef * (row.logp - row.ref).sum() if form == "a_lol_kl" else 0.0
        losses.append(worth[id(row)] * (factor * nll).sum() + extra)
    return torch.stack(losses).mean() if losses else 0.0 * torch.cat([row.logp for row in rows]).sum()


def _regression(rows: list[Row], beta: float, cap: float) -> Tensor:
    weights = [min(math.exp(float(row.weight[0]) / beta), cap) if len(row) else 0.0 for row in rows]
    return token_mean(rows, [-weight * row.logp for weight, row in zip(weights, rows, strict=True)])


def rwr(rows: list[Row], *, beta: float = 1.0, cap: float = 1000.0) -> Tensor:
    """-min(exp(R / beta), cap) log p (Peters and Schaal 2007; arXiv:2302.08582)."""
    return _regression(rows, beta, cap)


def awr(rows: list[Row], *, beta: float = 1.0, cap: float = 20.0) -> Tensor:
    """-min(exp((R - V) / beta), cap) log p (arXiv:1910.00177)."""
    return _regression(rows, beta, cap)


def ascent(rows: list[Row]) -> Tensor:
    """log p, a mean over tokens (arXiv:2210.01504)."""
    return token_mean(rows, [row.logp for row in rows])


def unlikelihood(rows: list[Row]) -> Tensor:
    """-log(1 - p), a mean over tokens (arXiv:1908.04319)."""
    return token_mean(rows, [-(1 - row.logp.exp()).log() for row in rows])


def npo(rows: list[Row], *, beta: float = 0.1) -> Tensor:
    """-(2/beta) log sigmoid(-beta log(pi(y)/pi_ref(y))), a mean over answers (arXiv:2404.05868, eq. 3)."""
    return row_mean(rows, [-2 / beta * logsigmoid(-beta * (row.logp - row.ref).sum()) for row in rows])


def forget_retain(
    rows: list[Row],
    *,
    forget: str = "ascent",
    beta: float = 0.1,
    forget_coef: float = 1.0,
    retain_coef: float = 1.0,
    kl_coef: float = 0.0,
) -> Tensor:
    """What is forgotten and what is kept, each a mean of its own (arXiv:2401.06121, "gradient difference")."""
    full = [row for row in rows if len(row)]
    gone, kept = ([row for row in full if (row.weight[0] < 0) == forgotten] for forgotten in (True, False))
    loss = 0.0 * torch.cat([row.logp for row in rows]).sum()
    if gone:
        loss = loss + forget_coef * (ascent(gone) if forget == "ascent" else npo(gone, beta=beta))
    return loss + retain_coef * sft(kept) + kl_coef * token_mean(kept, [anchor(row) for row in kept]) if kept else loss


PAPERS: tuple[Callable[..., Tensor], ...] = (
    sft,
    dft,
    asft,
    iw_sft,
    psft,
    f_sft,
    a_lol,
    rwr,
    awr,
    ascent,
    unlikelihood,
    npo,
    forget_retain,
)
