"""An algorithm tried on a small batch before anything is trained: what is wrong with it is a sentence, no traceback."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.algorithm import Algorithm, Term
from posttrain.estimator.batch import Batch, Origin
from posttrain.estimator.loss import policy_gradient_loss
from posttrain.estimator.needs import ASKED_BY, Needs
from posttrain.estimator.slopes import TokenSlopes
from posttrain.estimator.view import View

T = TypeVar("T")
ROWS, TOKENS = 12, 6


def try_out(algorithm: Algorithm) -> frozenset[str]:
    """Makes the loss of a batch that has what `needs` asks for, and nothing else, in float64, and its gradient.

    Raises:
        ValueError: says which part fails, has a wrong shape, or reads what it did not ask for; that the gradient is not
            finite; or that an algorithm of token scope has weights that depend on other tokens, or on where a token stands.

    Returns:
        The names of its metrics.
    """
    batch, logp, random = _batch(algorithm)
    quantities = {"entropy": algorithm.needs.entropy, algorithm.divergence.name: algorithm.needs.compares_distributions}
    for penalty in algorithm.penalties:
        if not quantities[penalty.quantity]:
            asked = "entropy=True" if penalty.quantity == "entropy" else 'full_kl=True), or Needs(teacher="full"'
            raise ValueError(f"{algorithm.name}: the penalty {penalty.name} reads {penalty.quantity}: Needs({asked})")
    given: dict[str, Any] = {
        name: torch.rand(logp.shape, dtype=logp.dtype, generator=random).requires_grad_()
        for name, needed in quantities.items()
        if needed
    }
    logp.requires_grad_()
    prepared = _explained(algorithm, batch, lambda: algorithm.prepare(batch))
    if prepared.advantage is not None and prepared.advantage.shape != logp.shape:
        raise ValueError(f"{algorithm.name}: credit made advantages of shape {tuple(prepared.advantage.shape)}, not [B, T]")
    output = _explained(algorithm, prepared, lambda: policy_gradient_loss(algorithm, logp, prepared, **given))
    (gradient,) = torch.autograd.grad(output.loss, logp, retain_graph=True)
    if not gradient.isfinite().all():
        raise ValueError(f"{algorithm.name}: the gradient of a small batch is not finite")
    if algorithm.needs.scope == "token":
        for term in algorithm.terms:
            _check_token_scope(algorithm, term, prepared, logp.detach())
        _check_slopes(algorithm, prepared, output.loss, [logp, *given.values()])
    return frozenset(output.metrics)


def _batch(algorithm: Algorithm) -> tuple[Batch, Float[Tensor, "B T"], torch.Generator]:
    needs, random = algorithm.needs, torch.Generator().manual_seed(0)
    rows = max(ROWS // needs.unit, 1) * needs.unit

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64, generator=random)

    shape, number = (rows, TOKENS), torch.arange(rows)
    mask = torch.arange(TOKENS) < (1 + number % TOKENS)[:, None]
    logp = -2 * drawn(*shape) - 0.01
    sampled = needs.rollouts > 0
    shown = number % 4 == 3 if needs.own_demonstrations or needs.demonstrations else torch.full((rows,), not sampled)
    origin = torch.where(shown[:, None], Origin.DEMO, Origin.ROLLOUT).expand(shape).contiguous()
    batch = Batch(
        loss_mask=mask,
        tokens=torch.zeros(shape, dtype=torch.int64),
        origin=origin,
        group=number // (4 if sampled else 1),
        behavior_logp=torch.where(origin == Origin.DEMO, 0.0, logp + 0.1 * drawn(*shape)) if sampled else None,
        old_logp=logp + 0.1 * drawn(*shape) if needs.old_logp else None,
        ref_logp=logp + 0.1 * drawn(*shape) if needs.ref_logp else None,
        teacher_logp=logp + 0.1 * drawn(*shape) if needs.teacher == "logp" else None,
        weight=_worth(needs, drawn(*shape)) if needs.weight != "none" else None,
        entropy=drawn(*shape) if needs.collected_entropy != "none" else None,
        collision=-drawn(*shape) if needs.collision else None,
        reward=drawn(rows) if sampled else None,
        correct=number % 2 == 0 if needs.verdict else None,
        chosen=number % needs.unit == 0 if needs.preference else None,
        anchor=torch.full((rows,), 0.1, dtype=torch.float64) if needs.anchor != "none" else None,
        baseline=drawn(rows) if needs.baseline != "none" else None,
        turn=(1 + torch.arange(TOKENS) // 2).expand(shape).contiguous() if needs.turns else None,
        token_reward=drawn(*shape) * (torch.arange(TOKENS) % 2) if needs.turns else None,
        taught=number % 3 > 0 if needs.shows_right else None,
        progress=0.5,
        coefficients={one.name: one.start for one in algorithm.adaptive},
        unit=needs.unit,
    )
    return batch, logp, random


def _worth(needs: Needs, drawn: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    wanted = torch.arange(len(drawn))[:, None] % 3 > 0
    return torch.where(wanted, torch.ones_like(drawn), -1) if needs.weight == "label" else drawn


def _explained(algorithm: Algorithm, batch: Batch, make: Callable[[], T]) -> T:
    try:
        return make()
    except Exception as error:  # parts may be anybody's
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        absent = [f"{name} (Needs: {how})" for name, how in ASKED_BY.items() if getattr(batch, name) is None]
        raise ValueError(
            f"{algorithm.name} fails on a small batch: {what.rstrip('.')}. A batch has what Needs asks for; this one has no "
            f"{', '.join(absent)}"
        ) from error


def _check_token_scope(algorithm: Algorithm, term: Term, batch: Batch, logp: Tensor) -> None:
    """The weight of the first token must not move when other tokens of its row do."""
    select = term.select(batch)
    moved = logp - 0.5 * (torch.arange(TOKENS) > 0)
    changed = {
        name: value - 0.5 * (torch.arange(TOKENS) > 0)
        for name in ("old_logp", "ref_logp", "teacher_logp", "behavior_logp")
        if (value := getattr(batch, name)) is not None
    }
    before = term.estimator.weights(View.of(batch, logp, select)).value[:, 0]
    after = term.estimator.weights(View.of(dataclasses.replace(batch, **changed), moved, select)).value[:, 0]
    if not torch.equal(before, after):
        raise ValueError(
            f"{algorithm.name}: the weights of the term {term.name} depend on other tokens of the row, and Needs says "
            'that they do not: set scope="sequence"'
        )


def _check_slopes(algorithm: Algorithm, batch: Batch, loss: Tensor, scores: list[Float[Tensor, "B T"]]) -> None:
    """What the output layer is told of the tokens at hand, three at a time, must be the gradient of the whole loss."""
    index = batch.loss_mask.flatten().nonzero()[:, 0]
    if not len(index):
        return
    found = torch.autograd.grad(loss, scores, allow_unused=True, materialize_grads=True)
    expected, columns = (torch.stack([one.detach().flatten()[index] for one in of], 1) for of in (found, scores))
    parts = [slice(start, start + 3) for start in range(0, len(index), 3)]

    def slopes() -> Tensor:
        of_tokens = TokenSlopes(algorithm, batch, index, algorithm.counts(batch))
        return torch.cat([of_tokens(columns[part], part) for part in parts])

    if not torch.allclose(_explained(algorithm, batch, slopes), expected, rtol=1e-9, atol=1e-12):
        raise ValueError(
            f"{algorithm.name}: the weight of a token depends on where it stands in its row, and Needs says that it depends "
            'on the token alone: set scope="sequence"'
        )
