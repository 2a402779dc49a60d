"""torch's flash kernels for stretches of any length, on a CPU and in float64 too, by the formulas that they compute.

In place of the kernels under their own names, so that what calls them is what runs on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

SEED = 7  # of the noise of a call, where attention drops weights out


def _stretches(starts: tuple[Tensor, Tensor]) -> Iterator[tuple[slice, slice]]:
    queries, keys = (one.tolist() for one in starts)
    assert len(queries) == len(keys) and queries[0] == keys[0] == 0
    for i in range(len(queries) - 1):
        yield slice(queries[i], queries[i + 1]), slice(keys[i], keys[i + 1])


def _scores(query: Tensor, key: Tensor, scale: float, causal: bool) -> Tensor:
    """[h, q, k]; the last query sees the last key."""
    scores = scale * torch.einsum("qhd,khd->hqk", query, key)
    seen = torch.ones(scores.shape[1:], dtype=torch.bool).tril(scores.shape[2] - scores.shape[1])
    return scores.masked_fill(~seen, -torch.inf) if causal else scores


def _kept(shape: torch.Size, noise: Tensor, dropout: float) -> Tensor:
    """The factor of each weight."""
    draw = torch.Generator().manual_seed(int(noise[0]))
    return (torch.rand(shape, generator=draw, dtype=torch.float64) >= dropout) / (1 - dropout)


def _wide(query: Tensor, *of_keys: Tensor) -> tuple[Tensor, ...]:
    """Every query's head has its own of the keys'; in float32 at least."""
    to, groups = torch.promote_types(query.dtype, torch.float32), query.shape[1] // of_keys[0].shape[1]
    return query.to(to), *(one.to(to).repeat_interleave(groups, 1) for one in of_keys)


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cum_seq_q: Tensor,
    cum_seq_k: Tensor,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    return_debug_mask: bool,
    *,
    scale: float | None = None,
    **options: Any,
) -> tuple[Tensor, ...]:
    assert not options and not return_debug_mask and cum_seq_q.dtype == cum_seq_k.dtype == torch.int32
    assert query.dtype == key.dtype == value.dtype and query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
    assert cum_seq_q[-1] == len(query) and cum_seq_k[-1] == len(key) == len(value)
    q, k, v = _wide(query, key, value)
    out, logsum = torch.empty_like(q), q.new_empty(query.shape[1], len(query))
    noise = torch.full((2,), SEED, dtype=torch.uint64)
    for of, to in _stretches((cum_seq_q, cum_seq_k)):
        assert 0 < of.stop - of.start <= max_q and 0 < to.stop - to.start <= max_k  # zero tokens: the kernels differ in it
        scores = _scores(q[of], k[to], scale or query.shape[2] ** -0.5, is_causal)
        logsum[:, of] = scores.logsumexp(-1)
        weights = scores.softmax(-1) * (_kept(scores.shape, noise, dropout_p) if dropout_p else 1.0)
        out[of] = torch.einsum("hqk,khd->qhd", weights.to(v.dtype), v[to])
    return out.to(query.dtype), logsum, noise, query.new_empty(0), query.new_empty(0)


def backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    cum_seq_q: Tensor,
    cum_seq_k: Tensor,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    rng_state: Tensor,
    unused: Tensor,
    *,
    scale: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """As the kernels do it: by the output and the log-sums that are given, from which nothing is made anew."""
    assert not options and logsumexp.is_contiguous() and logsumexp.shape == query.shape[1::-1]
    (q, k, v), by = _wide(query, key, value), scale or query.shape[2] ** -0.5
    grad, own = grad_out.to(q.dtype), (grad_out.to(q.dtype) * out.to(q.dtype)).sum(-1).T
    d_query, d_key, d_value = (torch.zeros_like(one) for one in (q, k, v))
    for of, to in _stretches((cum_seq_q, cum_seq_k)):
        scores = _scores(q[of], k[to], by, is_causal)
        weights = (scores - logsumexp[:, of, None]).exp()
        kept = _kept(scores.shape, rng_state, dropout_p).to(q.dtype) if dropout_p else 1.0
        d_scores = weights * (kept * torch.einsum("qhd,khd->hqk", grad[of], v[to]) - own[:, of, None])
        d_value[to] += torch.einsum("hqk,qhd->khd", weights * kept, grad[of])
        d_query[of] += by * torch.einsum("hqk,khd->qhd", d_scores, k[to])
        d_key[to] += by * torch.einsum("hqk,qhd->khd", d_scores, q[of])
    groups = query.shape[1] // key.shape[1]
    of_keys = (one.unflatten(1, (-1, groups)).sum(2) for one in (d_key, d_value))
    return tuple(one.to(query.dtype) for one in (d_query, *of_keys))  # type: ignore[return-value]


@contextmanager
def kernels() -> Iterator[None]:
    """They are there while this lasts."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", forward, "CPU")
    library.impl("_flash_attention_backward", backward, "CPU")
    try:
        yield
    finally:
        library._destroy()
