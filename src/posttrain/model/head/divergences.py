"""Divergences of whole distributions, and their slopes by the logits that p is made of.

With p the policy's, q the other model's, m = beta q + (1 - beta) p, and l = log p/q, or log p/m,

    d KL(q || p) / dz = p - q
    d KL(p || q) / dz = p (l - sum p l)
    d JSD / dz = (1 - beta) p (l - sum p l)      JSD = beta KL(q || m) + (1 - beta) KL(p || m)
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.divergence import Divergence


def value(of: Divergence, log_p: Float[Tensor, "c V"], log_q: Float[Tensor, "c V"]) -> Float[Tensor, "c 1"]:
    """The divergence of each row."""
    if of.name == "kl":
        return _kl(log_q, log_p)
    if of.name == "reverse_kl":
        return _kl(log_p, log_q)
    log_m = _mixture(of, log_p, log_q)
    return of.beta * _kl(log_q, log_m) + (1 - of.beta) * _kl(log_p, log_m)


def slope(of: Divergence, log_p: Float[Tensor, "c V"], log_q: Float[Tensor, "c V"]) -> Float[Tensor, "c V"]:
    """Its derivative by the logits of p, by the temperature. Nothing is left of log q."""
    p = log_p.exp()
    if of.name == "kl":
        return p.sub_(log_q.exp_())
    share = 1.0 if of.name == "reverse_kl" else 1 - of.beta
    other = log_q if of.name == "reverse_kl" else _mixture(of, log_p, log_q)
    gap = torch.sub(log_p, other, out=log_q)
    return gap.sub_((p * gap).sum(1, keepdim=True)).mul_(p).mul_(share)


def _kl(log_a: Float[Tensor, "c V"], log_b: Float[Tensor, "c V"]) -> Float[Tensor, "c 1"]:
    return (log_a.exp() * (log_a - log_b)).sum(1, keepdim=True)


def _mixture(of: Divergence, log_p: Float[Tensor, "c V"], log_q: Float[Tensor, "c V"]) -> Float[Tensor, "c V"]:
    return torch.logaddexp(log_q + math.log(of.beta), log_p + math.log1p(-of.beta))
