"""Which tokens of the whole collection are learnt from, or marked: `Batch -> Batch`, in `prepare`, after advantages are made.

Chosen by what is known of a token alone: the same in any order of rows, and on any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posttrain.estimator.batch import Batch
from posttrain.estimator.parts.select import demonstrations

SCATTER = 0x9E3779B97F4A7C15 - 2**64  # 2^64 over the golden ratio: multiples of it are spread evenly over all integers


def most_uncertain(batch: Batch, *, keep: float, among: Callable[[Batch], Tensor] = demonstrations) -> Batch:
    """Advantage 0 on all selected tokens but the `keep` share of highest collected entropy, over the whole collection.

    Of n tokens (1 - keep) n, rounded down, are left out; of equal entropies the later ones.

    Raises:
        ValueError: the batch lacks the collecting policy's entropy.
    """
    if batch.entropy is None or batch.advantage is None:
        raise ValueError("Tokens are chosen by the collecting policy's entropy: set Batch.entropy.")
    tokens = among(batch)
    dropped = _lowest(batch.entropy, tokens, int(round((1 - keep) * int(tokens.sum()), 6)))
    return batch.replace(advantage=torch.where(dropped, 0.0, batch.advantage))


def without_covariant(batch: Batch, *, share: float, low: float, high: float) -> Batch:
    """Advantage 0 on tokens whose `covariance` lies in (low, high): on a `share` of all tokens, at least one, picked as if at
    random (Clip-Cov, arXiv:2505.22617).
    """
    assert batch.advantage is not None
    covariances = covariance(batch)
    inside = batch.loss_mask & (covariances > low) & (covariances < high)
    dropped = _lowest(_scattered(batch), inside, max(int(share * int(batch.loss_mask.sum())), 1))
    return batch.replace(advantage=torch.where(dropped, 0.0, batch.advantage))


def mark_covariant(batch: Batch, *, share: float) -> Batch:
    """Marks the `share` of all tokens, at least one, whose `covariance` is largest (KL-Cov, arXiv:2505.22617)."""
    number = max(int(share * int(batch.loss_mask.sum())), 1)
    return batch.replace(mark=_lowest(-covariance(batch), batch.loss_mask, number))


def covariance(batch: Batch) -> Float[Tensor, "B T"]:
    """(A - mean A)(log pi_old - mean log pi_old), means over all tokens that carry loss: what drives the entropy down.

    Raises:
        ValueError: the batch lacks the collecting policy's log-probs.
    """
    if batch.old_logp is None or batch.advantage is None:
        raise ValueError("Covariances are of the collecting policy's log-probs: set Batch.old_logp.")
    gaps = [values - _mean(values, batch.loss_mask) for values in (batch.advantage, batch.old_logp)]
    return torch.where(batch.loss_mask, gaps[0] * gaps[1], 0.0)


def _mean(values: Tensor, among: Bool[Tensor, "B T"]) -> Tensor:
    return values[among].sum() / among.sum().clamp(min=1)  # without padding, whose width would be in the last bit


def _scattered(batch: Batch) -> Int[Tensor, "B T"]:
    """A number for each token as good as random, made of its row's token ids and of its place: of nothing that is rounded, so
    that it is the same in any layout, and on any number of processes. An answer that comes again has the same numbers.
    """
    if batch.tokens is None:
        raise ValueError("Tokens are picked by their row's ids: set Batch.tokens.")
    place = batch.loss_mask.long().cumsum(-1)
    ids = torch.where(batch.loss_mask, batch.tokens.long() + 1, 0)
    powers = torch.full((ids.shape[1] + 1,), SCATTER, dtype=torch.int64, device=ids.device).cumprod(0)
    return ((ids * powers[place]).sum(-1, keepdim=True) + place) * SCATTER


def _lowest(values: Tensor, among: Bool[Tensor, "B T"], number: int) -> Bool[Tensor, "B T"]:
    """Where the `number` lowest of some tokens stand."""
    places = among.flatten().nonzero()[:, 0]
    order = values.flatten()[places].argsort(stable=True)
    chosen = torch.zeros_like(among).flatten()
    chosen[places[order[:number]]] = True
    return chosen.view(among.shape)
