"""The loss whose gradient is an algorithm's: one for all of them.

L = sum over terms of coef · (- sum_i sum_t w_it · logp_it · s_i / N), and penalties
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.algorithm import Algorithm, Penalty, Term, Weights
from posttrain.estimator.batch import Batch, Origin
from posttrain.estimator.parts.average import divisor
from posttrain.estimator.parts.coefficient import coefficient_at
from posttrain.estimator.parts.denominator import current
from posttrain.estimator.view import View


@dataclass(frozen=True, slots=True)
class LossOutput:
    """`loss`: scalar with gradient. `metrics`: detached 0-d shares of the step, which add up over micro-batches and
    ranks; names ending in /max take the maximum.
    """

    loss: Float[Tensor, ""]
    metrics: dict[str, Float[Tensor, ""]] = field(default_factory=dict[str, Tensor])


def policy_gradient_loss(
    algorithm: Algorithm,
    logp: Float[Tensor, "B T"],
    batch: Batch,
    entropy: Float[Tensor, "B T"] | None = None,
    kl: Float[Tensor, "B T"] | None = None,
    counts: Mapping[str, Float[Tensor, ""]] | None = None,
    *,
    reverse_kl: Float[Tensor, "B T"] | None = None,
    jsd: Float[Tensor, "B T"] | None = None,
) -> LossOutput:
    """The surrogate whose gradient is the algorithm's: L = sum over terms of coef · (- sum w · logp · s / N), and penalties.

    Args:
        algorithm: from `build_algorithm`, or composed by hand.
        logp: log-probs of the completion's tokens under the current policy, with gradient; index t is token t.
        batch: what `algorithm.prepare` returned, or a part of it.
        entropy: with gradient, where a penalty of the algorithm asks for it.
        kl: KL(reference || current) over the vocabulary, with gradient, where a penalty asks for it; from a teacher where the
            algorithm has one.
        counts: denominators of the whole optimizer step, when `batch` is a micro-batch; None: the batch is the step.
        reverse_kl: as kl; KL(current || reference).
        jsd: as kl; the generalised Jensen-Shannon divergence.

    Raises:
        ValueError: the batch lacks what the algorithm needs, or `old_logp` is None with several updates a collection.
    """
    quantities = {"entropy": entropy, "kl": kl, "reverse_kl": reverse_kl, "jsd": jsd}
    _check(algorithm, logp, batch, quantities, counts)
    logp = logp if logp.dtype == torch.float64 else logp.float()
    counts = algorithm.counts(batch) if counts is None else counts
    loss = 0.0 * torch.where(batch.loss_mask, logp, 0.0).sum()  # backward runs where no term selects a token, too
    metrics: dict[str, Tensor] = {}
    tokens = [counts[f"{term.name}/tokens"] for term in algorithm.terms if term.estimator.denominator is not current]
    compared = sum(tokens, torch.zeros_like(loss)).clamp(min=1).to(logp.dtype)

    for term in algorithm.terms:
        select = term.select(batch)
        view = View.of(batch, logp, select)
        weights = term.estimator.weights(view)
        term_loss = coefficient_at(term.coef, batch) * _average(-weights.value * logp, select, term, counts)
        loss = loss + term_loss
        metrics[f"loss/{term.name}"] = term_loss.detach()
        if algorithm.needs.own_demonstrations or algorithm.needs.demonstrations:
            scaled = weights.value.abs() * coefficient_at(term.coef, batch)
            for origin, name in _WEIGHTS.items():
                part = torch.where(batch.origin == origin, scaled, 0.0)
                share = _average(part, select, term, counts)
                metrics[name] = metrics.get(name, torch.zeros_like(share)) + share
        if term.estimator.denominator is not current:
            for name, share in _ratio_shares(view, weights).items():
                metrics[name] = metrics.get(name, torch.zeros_like(share)) + share / compared
        for metric in term.metrics:
            with torch.no_grad():
                values = metric.value(view)
                divided = values.sum() / divisor(counts[term.name]).to(logp.dtype)
                metrics[metric.name] = _average(values, select, term, counts) if values.shape == select.shape else divided
    for penalty in algorithm.penalties:
        quantity = quantities[penalty.quantity]
        assert quantity is not None  # _check
        mean = _average(quantity.to(logp.dtype), penalty.select(batch), penalty, counts)
        loss = loss + coefficient_at(penalty.coef, batch) * mean
        metrics[penalty.name] = mean.detach()
    metrics["loss"] = loss.detach()
    return LossOutput(loss, metrics)


_WEIGHTS = {Origin.ROLLOUT: "weight/rollouts", Origin.DEMO: "weight/demonstrations"}
"""Sums of |w| · s / N: how much of a step is learnt from what the policy wrote, and how much from what it was shown."""


def _average(values: Tensor, select: Tensor, part: Term | Penalty, counts: Mapping[str, Tensor]) -> Tensor:
    scaled = torch.where(select, values, 0.0) * part.average.row_scale(select).to(values.dtype)
    return scaled.sum() / divisor(counts[part.name]).to(values.dtype)


def _ratio_shares(view: View, weights: Weights) -> dict[str, Tensor]:
    """Sums over tokens. For terms whose denominator is the current policy the ratio is 1 by definition."""
    return {
        "ratio/mean": torch.where(view.select, weights.ratio, 0.0).sum(),
        "ratio/capped_fraction": weights.capped.sum(),
        "mask/dropped_fraction": (view.select & ~weights.kept).sum(),
    }


def _check(
    algorithm: Algorithm,
    logp: Tensor,
    batch: Batch,
    quantities: Mapping[str, Tensor | None],
    counts: Mapping[str, Tensor] | None,
) -> None:
    if logp.shape != batch.loss_mask.shape:
        raise ValueError(f"logp has shape {tuple(logp.shape)}, the batch's loss_mask {tuple(batch.loss_mask.shape)}.")
    parts = (*algorithm.terms, *algorithm.penalties)
    uncounted = [part.name for part in parts if counts is not None and part.name not in counts]
    if uncounted:
        raise ValueError(f"counts has no {', '.join(uncounted)}: make it by algorithm.counts, added up over the step.")
    needs = algorithm.needs
    missing = [name for name in ("ref_logp", "teacher_logp", "chosen") if getattr(batch, name) is None]
    if needs.ref_logp and "ref_logp" in missing:
        raise ValueError(f"{algorithm.name} compares with a reference policy: set Batch.ref_logp.")
    if needs.teacher == "logp" and "teacher_logp" in missing:
        raise ValueError(f"{algorithm.name} learns from a teacher: set Batch.teacher_logp.")
    if needs.preference and "chosen" in missing:
        raise ValueError(f"{algorithm.name} trains on preference pairs: set Batch.chosen.")
    if needs.unit not in (1, batch.unit):
        raise ValueError(f"{algorithm.name} trains on units of {needs.unit} rows: the batch has units of {batch.unit}.")
    if needs.older_policy and batch.old_logp is None:
        raise ValueError(
            f"{algorithm.name} makes {needs.updates} updates for each collection: set Batch.old_logp, the log-probs of "
            "the policy at collection. None means the current policy, which holds for one update only."
        )
    for penalty in algorithm.penalties:
        quantity = quantities[penalty.quantity]
        if quantity is None or quantity.shape != logp.shape:
            raise ValueError(f"{algorithm.name} has a penalty on {penalty.quantity}: pass {penalty.quantity}=, [B, T].")
