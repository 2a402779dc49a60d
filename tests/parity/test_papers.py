"""Every algorithm against a naive loss written from its paper, in float64.

The naive losses see rows without padding or masks, average with Python loops, and are differentiated by autograd with
respect to the logits. Their defaults are the papers', or those that the docstring names. Nothing of
`posttrain.estimator.parts` is used here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cases import BY_ID, CASES, Case, Sample, close, sample
from parity import credits, demonstrations, hinted, hybrids, policies, taught
from parity.preferences import AGREEING, PREFERENCES
from parity.rows import (
    INFINITY,
    Row,
    centred,
    clipped,
    corrected,
    divergence,
    entropy_bonus,
    leave_one_out,
    mean,
    normalised,
    others,
    read,
    row_mean,
    shaped,
    staleness,
    token_mean,
)
from posttrain import policy_gradient_loss

SEEDS = range(3)


# --- on policy -------------------------------------------------------------------------------------------------------


def grpo(
    rows: list[Row],
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coef: float = 0.04,
    kl: str = "k3",
    kl_in: str = "loss",
    dual_clip: float | None = None,
    entropy_coef: float = 0.0,
    correction: dict[str, Any] | None = None,
    off_policy_mask: float | None = None,
    updates: int = 1,
) -> Tensor:
    """-1/G sum_i 1/|o_i| sum_t [min(r A, clip(r) A) - coef · k3] (arXiv:2402.03300, eq. 3)."""
    if kl_in == "reward":
        rows, kl_coef = shaped(rows, kl_coef), 0.0
    losses = []
    for row, advantage in zip(rows, normalised(rows), strict=True):
        gain = corrected(row, correction) * clipped(row, row.logp - row.old, advantage, clip_low, clip_high, dual_clip)
        gain = gain * (off_policy_mask is None or advantage >= 0 or staleness(row) <= off_policy_mask)
        losses.append(-(gain - kl_coef * divergence(row, kl)).mean())
    return row_mean(rows, losses) + entropy_bonus(rows, entropy_coef)


def dr_grpo(rows: list[Row], *, max_tokens: int, clip_low: float = 0.2, clip_high: float = 0.2, updates: int = 1) -> Tensor:
    """The same without 1/|o_i| and without the std: sums over tokens, divided by a constant
    (arXiv:2503.20783, listing 1)."""
    gains = [
        clipped(row, row.logp - row.old, advantage, clip_low, clip_high)
        for row, advantage in zip(rows, centred(rows), strict=True)
    ]
    return row_mean(rows, [-gain.sum() / max_tokens for gain in gains])


def dapo(
    rows: list[Row],
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dynamic_sampling: bool = True,
    updates: int = 1,
) -> Tensor:
    """-1/sum|o_i| sum_i sum_t min(r A, clip(r, 1 - low, 1 + high) A) over groups that are not all alike
    (arXiv:2503.14476, eq. 8 to 11)."""
    if dynamic_sampling:
        rows = [row for row in rows if len(set(others(rows, row))) > 1]
    gains = [
        clipped(row, row.logp - row.old, advantage, clip_low, clip_high)
        for row, advantage in zip(rows, normalised(rows), strict=True)
    ]
    return token_mean(rows, [-gain for gain in gains])


def gspo(
    rows: list[Row], *, clip_low: float = 3e-4, clip_high: float = 4e-4, average: str = "sequence_mean", updates: int = 1
) -> Tensor:
    """-1/G sum_i min(s_i A, clip(s_i) A), s_i = (pi(y)/pi_old(y))^(1/|y|) (arXiv:2507.18071, eq. 5 and 7); times |y| in
    LUSPO (arXiv:2602.05261)."""
    gains = [
        clipped(row, (row.logp - row.old).mean(), advantage, clip_low, clip_high)
        for row, advantage in zip(rows, normalised(rows), strict=True)
    ]
    lengths = [len(row) if average == "sequence_sum" else 1 for row in rows]
    return row_mean(rows, [-gain * length for gain, length in zip(gains, lengths, strict=True)])


def cispo(rows: list[Row], *, clip_high: float = 4.0, kl_coef: float = 0.0, kl: str = "k3", updates: int = 1) -> Tensor:
    """-1/sum|o_i| sum_i sum_t sg(min(r, 1 + high)) A log p (arXiv:2506.13585, eq. 4 and 5; no lower bound)."""
    losses = []
    for row, advantage in zip(rows, normalised(rows), strict=True):
        weight = (row.logp - row.old).exp().clamp(max=1 + clip_high).detach()
        losses.append(-weight * advantage * row.logp + kl_coef * divergence(row, kl))
    return token_mean(rows, losses)


def reinforce(
    rows: list[Row],
    *,
    baseline: str = "none",
    kl_coef: float = 0.0,
    entropy_coef: float = 0.0,
    correction: dict[str, Any] | None = None,
) -> Tensor:
    """-1/N sum_i (R_i - b) log pi(y_i) (Williams 1992)."""
    rows = shaped(rows, kl_coef)
    advantages = centred(rows) if baseline == "group_mean" else [row.reward for row in rows]
    losses = [-a * (corrected(row, correction) * row.logp).sum() for row, a in zip(rows, advantages, strict=True)]
    return row_mean(rows, losses) + entropy_bonus(rows, entropy_coef)


def rloo(
    rows: list[Row], *, kl_coef: float = 0.05, clip_low: float = 0.2, clip_high: float = 0.2, updates: int = 1
) -> Tensor:
    """-1/N sum_i (R_i - mean of the others) log pi(y_i) (arXiv:2402.14740, eq. 8); with several updates TRL's
    min(r A, clip(r) A), r = pi(y)/pi_old(y)."""
    rows, losses = shaped(rows, kl_coef), []
    for row, advantage in zip(rows, leave_one_out(rows), strict=True):
        ratio = (row.logp - row.old).sum()
        losses.append(-advantage * row.logp.sum() if updates == 1 else -clipped(row, ratio, advantage, clip_low, clip_high))
    return row_mean(rows, losses)


# --- rollouts and demonstrations -------------------------------------------------------------------------------------


def per_row(rows: list[Row], losses: list[Tensor], max_tokens: int) -> Tensor:
    """Sums over tokens, divided by rows × max_tokens; 0 without rows."""
    return row_mean(rows, [loss.sum() / max_tokens for loss in losses]) if any(map(len, rows)) else torch.tensor(0.0)


def per_token(rows: list[Row], losses: list[Tensor]) -> Tensor:
    return token_mean(rows, losses) if any(map(len, rows)) else torch.tensor(0.0)


def tried_and_shown(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    return [row for row in rows if not row.shown], [row for row in rows if row.shown]


def penalties(rows: list[Row], tried: list[Row], kl_coef: float, entropy_coef: float, max_tokens: int) -> Tensor:
    kl = per_row(tried, [divergence(row, "k3") for row in tried], max_tokens)
    return kl_coef * kl + per_token(rows, [entropy_coef * (row.policy.exp() * row.policy).sum(-1) for row in rows])


def hpt(
    rows: list[Row],
    *,
    max_tokens: int,
    gate: int = 0,
    gate_off: int | None = None,
    off_coef: float = 1.0,
    gamma: float = 0.1,
    coefficients: tuple[tuple[float, float], ...] | None = None,
    rollouts: int = 8,
    sft_coef: float = 1.0,
    sft_average: str = "token",
    clip: bool = False,
    std: bool = False,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coef: float = 0.0,
    entropy_coef: float = 0.0,
    updates: int = 1,
) -> Tensor:
    """For each question alpha · L_RL + beta · L_SFT, (1, 0) where more than `gate` rollouts are right, else (0, 1)
    (arXiv:2509.04419, eq. 7 to 13), or by a table; in between, RL on the demonstration as in its code's mixed gate,
    `-advantages * p / (p + gamma)` with its reward as the advantage. Each part is divided by its own count over the step."""
    tried: list[tuple[float, Row]] = []
    shown: list[tuple[float, Row]] = []
    off: list[Row] = []
    for group in sorted({row.group for row in rows}):
        tries, demonstration = tried_and_shown([row for row in rows if row.group == group])
        right = sum(row.correct for row in tries)
        alpha, beta = (0.0, 1.0) if right <= gate else (1.0, 0.0)
        if coefficients is not None:
            alpha, beta = coefficients[right]
        if not len(demonstration[0]):
            alpha, beta = 1.0, 0.0
        elif gate_off is not None and gate < right <= gate_off:
            alpha, beta, off = 0.0, 0.0, off + demonstration
        tried += [(alpha, row) for row in tries if alpha]
        shown += [(beta, row) for row in demonstration if beta]
    bounds = (clip_low, clip_high) if clip else (INFINITY, INFINITY)
    own, demonstrated = [row for _, row in tried], [row for _, row in shown]
    advantages = [alpha * a for (alpha, _), a in zip(tried, normalised(own) if std else centred(own), strict=True)]
    gains = [clipped(row, row.logp - row.old, a, *bounds) for row, a in zip(own, advantages, strict=True)]
    rl = per_row(own, [-gain for gain in gains], max_tokens)
    shaped_likelihood = [-row.reward * row.logp.exp() / (row.logp.exp() + gamma) for row in off]
    nll = [-beta * row.logp for beta, row in shown]
    means = [loss.mean() for loss in nll]
    imitation = per_token(demonstrated, nll) if sft_average == "token" or not shown else row_mean(demonstrated, means)
    rest = penalties(own + demonstrated + off, own, kl_coef, entropy_coef, max_tokens)
    return rl + sft_coef * imitation + off_coef * per_row(off, shaped_likelihood, max_tokens) + rest


def prefix_rft(
    rows: list[Row],
    *,
    max_tokens: int,
    keep: float = 0.2,
    baseline: str = "plain",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = 3.0,
    entropy_coef: float = 0.0,
    updates: int = 1,
) -> Tensor:
    """Dual-clip PPO on plain rollouts and on one that continues a demonstration's head, of whose tokens those of highest
    entropy are kept (arXiv:2507.01679); sums over tokens, divided by rows × max_tokens."""
    heads = sorted(float(h) for row in rows for h, own in zip(row.entropy, row.sampled, strict=True) if not own)
    least = heads[int(round((1 - keep) * len(heads), 6))] if keep < 1 and heads else -INFINITY
    losses: list[Tensor] = []
    for row in rows:
        group = [other for other in rows if other.group == row.group]
        plain = [other.reward for other in group if baseline == "group" or bool(other.sampled.all())]
        advantage = torch.full_like(row.old, row.reward - mean(plain))
        if baseline == "uncentred" and not bool(row.sampled.all()):
            advantage[row.sampled] = row.reward
        advantage = torch.where(row.sampled | (row.entropy >= least), advantage, 0.0)
        ratio = (row.logp - row.old).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)
        if dual_clip is not None:
            gain = torch.where(advantage < 0, torch.maximum(gain, dual_clip * advantage), gain)
        losses.append(-gain)
    own = [(row.policy.exp() * row.policy).sum(-1)[row.sampled] for row in rows]
    return per_row(rows, losses, max_tokens) + entropy_coef * torch.cat(own).sum() / len(torch.cat(own))


def luffy(
    rows: list[Row],
    *,
    max_tokens: int,
    gamma: float = 0.1,
    clip: bool = False,
    std: bool = False,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    correction: dict[str, Any] | None = None,
    updates: int = 1,
) -> Tensor:
    """-A · p/(p + gamma) on the demonstration, -A · r on rollouts; its reward is in the group's mean (arXiv:2504.14945,
    eq. 4 to 8)."""
    losses: list[Tensor] = []
    bounds = (clip_low, clip_high) if clip else (INFINITY, INFINITY)
    for row, advantage in zip(rows, normalised(rows) if std else centred(rows), strict=True):
        p = row.logp.exp()
        gain = advantage * p / (p + gamma) if row.shown else clipped(row, row.logp - row.old, advantage, *bounds)
        losses.append(-corrected(row, correction) * gain)
    return per_row(rows, losses, max_tokens)


def srft(
    rows: list[Row],
    *,
    max_tokens: int,
    sft_coef: float = 0.5,
    right_coef: float = 0.1,
    entropy_cap: float = 5.0,
    std: bool = True,
    updates: int = 1,
) -> Tensor:
    """L_demo^SFT + L_demo^RL + L_self (arXiv:2506.19767, eq. 6 to 12)."""
    tried, shown = tried_and_shown(rows)
    advantage = {id(row): a for row, a in zip(rows, normalised(rows) if std else centred(rows), strict=True)}

    def sureness(row: Row) -> float:
        return min(math.exp(float(row.entropy.mean())), entropy_cap) if len(row) else 1.0

    own = [-(right_coef * sureness(row) if row.correct else -1.0) * row.logp for row in tried]
    rl = [-advantage[id(row)] * row.logp.exp() for row in shown]
    imitation = [-sft_coef / sureness(row) * row.logp for row in shown]
    return per_row(tried, own, max_tokens) + per_row(shown, rl, max_tokens) + per_row(shown, imitation, max_tokens)


def chord(
    rows: list[Row],
    *,
    mu_peak: float = 0.1,
    mu_valley: float = 0.1,
    mu_warmup: float = 0.0,
    mu_decay: float = 1.0,
    phi: bool = True,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    updates: int = 1,
) -> Tensor:
    """(1 - mu) L_GRPO + mu L_SFT-phi, phi = sg(p (1 - p)) (arXiv:2508.11408), at 0.3 of the run."""
    tried, shown = tried_and_shown(rows)
    fall = min((0.3 - mu_warmup) / mu_decay, 1.0)
    mu = mu_valley + (mu_peak - mu_valley) * (1 + math.cos(math.pi * fall)) / 2
    pairs = zip(tried, normalised(tried), strict=True)
    gains = [clipped(row, row.logp - row.old, a, clip_low, clip_high) for row, a in pairs]
    imitation = [-((row.logp.exp() * (1 - row.logp.exp())).detach() if phi else 1.0) * row.logp for row in shown]
    return (1 - mu) * per_token(tried, [-gain for gain in gains]) + mu * per_token(shown, imitation)


def grpo_sft(rows: list[Row], *, sft_coef: float = 1.0, kl_coef: float = 0.0, updates: int = 1) -> Tensor:
    """GRPO on rollouts, whose group does not hold the demonstration, and a coefficient times its -log p
    (arXiv:2504.14945, the baseline "RL w/ SFT loss")."""
    tried, shown = tried_and_shown(rows)
    return grpo(tried, kl_coef=kl_coef, updates=updates) + sft_coef * per_token(shown, [-row.logp for row in shown])


NAIVE: dict[str, Callable[..., Tensor]] = PREFERENCES | {
    paper.__name__: paper
    for paper in (
        *demonstrations.PAPERS, grpo, dr_grpo, dapo, gspo, cispo, reinforce, rloo,
        hpt, prefix_rft, luffy, srft, chord, grpo_sft, *taught.PAPERS,
    )
} | policies.NAIVE | credits.NAIVE | hinted.NAIVE | hybrids.NAIVE  # fmt: skip


def naive(case: Case, drawn: Sample, **changed: Any) -> tuple[Tensor, Tensor]:
    """The paper's loss and its gradient with respect to the logits."""
    logits = drawn.logits.clone().requires_grad_()
    followed = drawn.batch.coefficients or {}
    applied = {name: followed.get(name, value) for name, value in case.options.items()}
    loss = NAIVE[case.name](read(drawn, logits), **{**applied, **changed})
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


def ours(case: Case, drawn: Sample) -> tuple[dict[str, Tensor], Tensor]:
    """The metrics of `policy_gradient_loss` and its gradient with respect to the logits."""
    logits = drawn.logits.clone().requires_grad_()
    batch = case.algorithm.prepare(drawn.batch)
    output = policy_gradient_loss(case.algorithm, batch=batch, **drawn.inputs(logits))
    return output.metrics, torch.autograd.grad(output.loss, logits)[0]


def drawn_for(case: Case, seed: int) -> Sample:
    return sample(case.algorithm, seed=seed, units=3, width=6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_is_the_papers(case: Case, seed: int) -> None:
    drawn = drawn_for(case, seed)
    close(ours(case, drawn)[1], naive(case, drawn)[1], rtol=1e-12)


OFF = {
    "clip_low": INFINITY,
    "clip_high": INFINITY,
    "dual_clip": None,
    "ratio_cap": INFINITY,
    "max_weight": INFINITY,
    "exponent": 1.0,
    "kl_coef": 0.0,
    "entropy_coef": 0.0,
    "correction": None,
    "label_smoothing": 0.0,
    "dynamic_sampling": False,
    "average": "sum",
    "baseline": "none",
    "gate": -1,
    "sft_coef": 0.0,
    "sft_average": "token",
    "std": False,
    "keep": 1.0,
    "entropy_cap": INFINITY,
    "right_coef": 0.0,
    "phi": False,
    "mu_peak": 0.0,
    "weights": "unread",
    "flipped": 0.0,
    "penalty": 0.0,
    "length_coef": 0.0,
    "alpha": 1.0,
    "gamma": 1e9,
    "odds_coef": 0.0,
    "clip": 1e9,
    "floor": 0.0,
    "cap": INFINITY,
    "guard": 1e-9,
    "forget_coef": 0.0,
    "retain_coef": 0.0,
    "temperature": 1.0,
    "beta": 0.3,
    "reward_coef": 0.0,
    "kl_max": INFINITY,
    "anchor": "zero",
    "desirable": 1.0,
    "undesirable": 1.0,
}
ACTING = {
    "sft-weights": ("weights",),
    "sft-weighted_mean": ("weights",),
    "sft-anchored": ("kl_coef",),
    "dft-mixed": ("sft_coef",),
    "f_sft-held": ("guard",),
    "a_lol": ("clip",),
    "a_lol-a_lol_seq": ("clip",),
    "a_lol-a_lol_kl": ("kl_coef",),
    "a_lol-r_gold": ("floor",),
    "awr": ("cap",),
    "forget_retain": ("retain_coef",),
    "forget_retain-npo": ("forget_coef", "retain_coef", "kl_coef"),
    "asft": ("kl_coef",),
    "asft-mixed": ("sft_coef",),
    "iw_sft-bounded": ("max_weight", "exponent"),
    "psft": ("clip_high",),
    "dpo-smoothed": ("label_smoothing",),
    "ipo-token": ("average",),
    "robust_dpo": ("flipped",),
    "dpop": ("penalty",),
    "r_dpo": ("length_coef",),
    "ld_dpo": ("alpha",),
    "rpo": ("sft_coef", "sft_average"),
    "simpo-sft": ("sft_coef",),
    "cpo": ("sft_coef",),
    "orpo": ("odds_coef",),
    "slic": ("sft_coef",),
    "kto": ("anchor",),
    "kto-weighted": ("desirable", "undesirable"),
    "grpo": ("kl_coef",),
    "grpo-several": ("clip_low", "clip_high"),
    "grpo-k2": ("kl_coef",),
    "grpo-kl_in_reward": ("kl_coef",),
    "grpo-dual": ("dual_clip",),
    "grpo-adaptive": ("kl_coef", "entropy_coef"),
    "grpo-adaptive_in_reward": ("kl_coef",),
    "grpo-entropy": ("entropy_coef",),
    **{str(case): ("correction",) for case in CASES if "correction" in case.options},
    "dr_grpo-several": ("clip_low", "clip_high"),
    "dapo": ("dynamic_sampling",),
    "dapo-several": ("clip_low", "clip_high"),
    "gspo-several": ("clip_low", "clip_high"),
    "cispo-several": ("clip_high", "kl_coef"),
    "reinforce-baseline": ("baseline", "entropy_coef"),
    "reinforce-kl": ("kl_coef",),
    "rloo": ("kl_coef",),
    "rloo-several": ("clip_low", "clip_high"),
    "hpt": ("gate", "sft_coef"),
    "hpt-paper": ("clip_low", "clip_high", "std", "sft_average"),
    "hpt-weak": ("gate", "sft_coef", "kl_coef", "entropy_coef"),
    "hpt-soft": ("coefficients", "sft_coef"),
    "hpt-mixed": ("gate_off", "off_coef", "gamma", "sft_coef"),
    "prefix_rft": ("keep",),
    "prefix_rft-several": ("clip_low", "clip_high", "dual_clip", "keep"),
    "prefix_rft-group": ("entropy_coef",),
    "luffy": ("gamma",),
    "luffy-several": ("clip_low", "clip_high", "std", "gamma"),
    "srft": ("std", "right_coef", "sft_coef", "entropy_cap"),
    "chord": ("phi", "mu_peak"),
    "chord-mu": ("clip_low", "clip_high"),
    "grpo_sft": ("sft_coef",),
    "grpo_sft-several": ("kl_coef",),
    **policies.ACTING,
    **hybrids.ACTING,
    **credits.ACTING,
    **hinted.ACTING,
    "kd": ("alpha",),
    "kd-hot": ("alpha", "temperature"),
    "gkd": ("beta",),
    "opd-several": ("clip_low", "clip_high", "kl_max", "kl_coef"),
    "opd-rewarded": ("reward_coef", "kl_max"),
    "sdpo": ("kl_max",),
    "sdpo-mixed": ("ratio_cap", "kl_coef"),
}


@pytest.mark.parametrize(("name", "option"), [(name, option) for name, options in ACTING.items() for option in options])
def test_random_cases_reach_every_bound(name: str, option: str) -> None:
    """Parity proves nothing of a clip that never acts: without it, the paper's own gradient would differ."""
    case, moved = BY_ID[name], 0.0
    of_name = policies.OFF | credits.OFF | hinted.OFF
    off = of_name[case.name, option] if (case.name, option) in of_name else OFF[option]
    for seed in SEEDS:
        drawn = drawn_for(case, seed)
        with_it, without = naive(case, drawn)[1], naive(case, drawn, **{option: off})[1]
        moved = max(moved, float((with_it - without).abs().max() / with_it.abs().max()))
    assert moved > 1e-3


def alone(case: Case) -> bool:
    return len(case.algorithm.terms) == 1


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        *((str(case), f"objective/{case.name}") for case in CASES if case.name in PREFERENCES and alone(case)),
        ("grpo-no_kl", "objective/clipped"),
        ("grpo-dual", "objective/clipped"),
        ("dr_grpo-several", "objective/clipped"),
        ("dapo-several", "objective/clipped"),
        ("a_star_po", "objective/a_star_po"),
        ("sft", "nll"),
    ],
)
def test_native_objective_is_the_papers(name: str, metric: str) -> None:
    drawn = drawn_for(BY_ID[name], 0)
    close(ours(BY_ID[name], drawn)[0][metric], naive(BY_ID[name], drawn)[0])


@pytest.mark.parametrize("name", AGREEING)
def test_preference_objectives_where_policy_and_reference_agree(name: str) -> None:
    drawn = drawn_for(BY_ID[name], 0)
    agreeing = dataclasses.replace(drawn, batch=drawn.batch.replace(ref_logp=drawn.inputs()["logp"]))
    metrics, _ = ours(BY_ID[name], agreeing)
    expected = {f"objective/{BY_ID[name].name}": AGREEING[name], "preference/accuracy": 0.5, "preference/margin": 0.0}
    assert {key: float(metrics[key]) for key in expected} == pytest.approx(expected, rel=1e-12)
