"""SFT as the learning of an implicit reward, q = beta (logp - start), by an f-divergence: the slopes of its losses by q."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator import View
from posttrain.estimator.batch import MAX_LOG_RATIO

Slope = Callable[[Tensor], Tensor]


def total_variation(q: Tensor) -> Tensor:
    """1, of the loss -q: SFT."""
    return torch.ones_like(q)


def chi_squared(q: Tensor) -> Tensor:
    """1 - q/2, of -q + q²/4: it stops at q = 2, and turns."""
    return 1 - q / 2


def hellinger(q: Tensor) -> Tensor:
    """1/(1 + q)², of -q/(1 + q); q > -1."""
    return (1 + q) ** -2


def kullback_leibler(q: Tensor) -> Tensor:
    """exp(-q - 1), of the same."""
    return (-q - 1).clamp(max=MAX_LOG_RATIO).exp()


def jensen_shannon(q: Tensor) -> Tensor:
    """1/(2 exp(q) - 1), of -log(2 - exp(-q)); q > -log 2."""
    return 1 / (2 * q.clamp(max=MAX_LOG_RATIO).exp() - 1)


LEAST: Mapping[Slope, float] = {hellinger: -1.0, jensen_shannon: -math.log(2)}
"""Where the domain of a loss ends."""


def implicit_reward(view: View, *, beta: float) -> Float[Tensor, "..."]:
    """beta (logp - start)."""
    return beta * (view.logp - view.require("ref_logp"))


def pull(view: View, *, slope: Slope, beta: float, guard: float) -> Float[Tensor, "..."]:
    """beta · slope(q), for q nearer to the end of the domain than `guard` as at that distance."""
    return beta * slope(implicit_reward(view, beta=beta).clamp(min=LEAST.get(slope, -math.inf) + guard))


def held(view: View, *, slope: Slope, beta: float, guard: float) -> Float[Tensor, "..."]:
    """1 where the pull is held at the guard."""
    outside = implicit_reward(view, beta=beta) < LEAST.get(slope, -math.inf) + guard
    return (outside & view.select).to(view.logp.dtype)
