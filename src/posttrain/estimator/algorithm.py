"""The one estimator that every algorithm is a row of, and the loss made from it.

    grad = 1_stable · (1 / pi_ref) · A · grad pi_theta                                   (arXiv:2509.04419)
    w_it = sg(mask · correction · A · exp(logp - log pi_ref)),   L = - sum_i sum_t w_it · logp_it · s_i / N

since grad pi = pi · grad log pi. Nothing here knows of vocabularies, models, files, configs or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posttrain.estimator.batch import MAX_LOG_RATIO, Batch, Origin, Question, Request, View
from posttrain.estimator.needs import Needs
from posttrain.estimator.parts.advantage import given
from posttrain.estimator.parts.average import Average
from posttrain.estimator.parts.average import token as token_average
from posttrain.estimator.parts.correction import none
from posttrain.estimator.parts.credit.baseline import as_given
from posttrain.estimator.parts.denominator import current
from posttrain.estimator.parts.mask import keep
from posttrain.estimator.parts.plan import plain
from posttrain.estimator.parts.select import everything
from posttrain.estimator.table import table_rows

Part = Callable[[View], Tensor]
Mask = Callable[[View, Tensor, Tensor], Tensor]
Select = Callable[[Batch], Tensor]
Coefficient = float | Callable[[float], float]
Planner = Callable[[Question, int, float, Random], list[Request]]


@dataclass(frozen=True, slots=True)
class Weights:
    """The detached weight of each token, and what it was made of. All [B, T]."""

    value: Float[Tensor, "..."]
    ratio: Float[Tensor, "..."]
    kept: Bool[Tensor, "..."]
    capped: Bool[Tensor, "..."]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """The four parts of a row of the table; the likelihood is always the token's own.

    Order of evaluation: denominator → ratio → advantage → mask, for the mask looks at the ratio and the advantage.
    """

    denominator: Part
    advantage: Part
    mask: Mask = keep
    correction: Part = none

    @torch.no_grad()
    def weights(self, view: View) -> Weights:
        """sg(mask · correction · A · pi/pi_ref), 0 outside the view's selection."""
        log_ratio = view.logp - self.denominator(view)
        ratio = log_ratio.clamp(max=MAX_LOG_RATIO).exp().expand(view.logp.shape)
        advantage = self.advantage(view).expand(view.logp.shape)
        kept = self.mask(view, ratio, advantage)
        value = torch.where(kept, self.correction(view) * advantage * ratio, 0.0)
        return Weights(value, ratio, kept, (log_ratio > MAX_LOG_RATIO) & view.select)


@dataclass(frozen=True, slots=True)
class Metric:
    """A quantity to watch: `value(view)` is [B, T], or one number for each unit of the term's N."""

    name: str
    value: Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One expectation: an estimator, the tokens that it covers, what it averages over, and its coefficient."""

    name: str
    estimator: Estimator
    average: Average
    select: Select = everything
    coef: Coefficient = 1.0
    metrics: tuple[Metric, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """coef · mean of a quantity over the whole vocabulary, which has a gradient of its own and is no row of the table."""

    name: str
    quantity: Literal["entropy", "kl"]
    coef: Coefficient
    average: Average = token_average
    select: Select = everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """A row of the table, as a frozen value: terms, penalties, needs, how rewards become advantages, what is sampled."""

    name: str
    paper: str
    terms: tuple[Term, ...]
    needs: Needs
    penalties: tuple[Penalty, ...] = ()
    credit: Callable[[Batch], Batch] = as_given
    planner: Planner = plain

    def prepare(self, batch: Batch) -> Batch:
        """Rewards and groups of the whole collection → advantages. May clear `loss_mask`. No model is used.

        A row that could not be graded (`reward_mask` False) has its loss mask cleared. A given advantage stays.

        Raises:
            ValueError: the algorithm makes advantages from rewards, and there is neither.
        """
        if batch.reward_mask is not None:
            batch = batch.replace(loss_mask=batch.loss_mask & batch.reward_mask[:, None])
        return batch if batch.advantage is not None else self.credit(batch)

    def counts(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """This batch's share of every denominator, float64: add them up over the optimizer step's batches and ranks.

        One for each term and penalty; `<term>/tokens`, the selected tokens, is what per-token metrics are divided by.
        To be called after `prepare` and before rows without signal are skipped.
        """
        shares: dict[str, Tensor] = {}
        for part in (*self.terms, *self.penalties):
            select = part.select(batch)
            shares[part.name] = part.average.count(select)
            shares[f"{part.name}/tokens"] = token_average.count(select)
        return shares

    @property
    def importance_ratio(self) -> bool:
        """Log-probs are compared with the sampler's or an older policy's: samples must be of the whole distribution."""
        corrected = any(term.estimator.correction is not none for term in self.terms)
        return corrected or self.needs.old_logp or self.needs.updates > 1

    def has_signal(self, batch: Batch) -> Bool[Tensor, " B"]:
        """False for the rows that no gradient can come from: no loss mask, or advantage 0 in every term and no penalty.

        Such rows are skipped before the forward pass, after the counts are made: same gradient, less work.
        """
        rows = torch.zeros_like(batch.loss_mask[:, 0])
        for part in (*self.terms, *self.penalties):
            if not _at(part.coef, batch.progress):
                continue
            select = part.select(batch)
            if isinstance(part, Term) and part.estimator.advantage is given and batch.advantage is not None:
                select = select & (batch.advantage != 0)
            rows = rows | select.any(-1)
        return rows

    def plan(self, question: Question, progress: float, rng: Random) -> list[Request]:
        """What to sample for a question, before generation: `needs.rollouts` completions, or nothing."""
        return self.planner(question, self.needs.rollouts, progress, rng)

    def __repr__(self) -> str:
        lines = [f"{self.name} ({self.paper}), scope {self.needs.scope}"]
        for row in table_rows(self):
            lines.append("  " + ", ".join(f"{key} {value}" for key, value in row.items() if value))
        return "\n".join(lines)


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
) -> LossOutput:
    """The surrogate whose gradient is the algorithm's: L = sum over terms of coef · (- sum w · logp · s / N), and penalties.

    Args:
        algorithm: from `build_algorithm`, or composed by hand.
        logp: log-probs of the completion's tokens under the current policy, with gradient; index t is token t.
        batch: what `algorithm.prepare` returned, or a part of it.
        entropy: with gradient, where a penalty of the algorithm asks for it.
        kl: KL(reference || current) over the vocabulary, with gradient, where a penalty asks for it.
        counts: denominators of the whole optimizer step, when `batch` is a micro-batch; None: the batch is the step.

    Raises:
        ValueError: the batch lacks what the algorithm needs, or `old_logp` is None with several updates a collection.
    """
    quantities = {"entropy": entropy, "kl": kl}
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
        term_loss = _at(term.coef, batch.progress) * _average(-weights.value * logp, select, term, counts)
        loss = loss + term_loss
        metrics[f"loss/{term.name}"] = term_loss.detach()
        if algorithm.needs.own_demonstrations or algorithm.needs.demonstrations:
            scaled = weights.value.abs() * _at(term.coef, batch.progress)
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
                divided = values.sum() / counts[term.name].clamp(min=1).to(logp.dtype)
                metrics[metric.name] = _average(values, select, term, counts) if values.shape == select.shape else divided
    for penalty in algorithm.penalties:
        quantity = quantities[penalty.quantity]
        assert quantity is not None  # _check
        mean = _average(quantity.to(logp.dtype), penalty.select(batch), penalty, counts)
        loss = loss + _at(penalty.coef, batch.progress) * mean
        metrics[penalty.name] = mean.detach()
    metrics["loss"] = loss.detach()
    return LossOutput(loss, metrics)


_WEIGHTS = {Origin.ROLLOUT: "weight/rollouts", Origin.DEMO: "weight/demonstrations"}
"""Sums of |w| · s / N: how much of a step is learnt from what the policy wrote, and how much from what it was shown."""


def _average(values: Tensor, select: Tensor, part: Term | Penalty, counts: Mapping[str, Tensor]) -> Tensor:
    scaled = torch.where(select, values, 0.0) * part.average.row_scale(select).to(values.dtype)
    return scaled.sum() / counts[part.name].clamp(min=1).to(values.dtype)


def _at(coefficient: Coefficient, progress: float) -> float:
    return coefficient(progress) if callable(coefficient) else coefficient


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
    missing = [name for name in ("ref_logp", "chosen") if getattr(batch, name) is None]
    if needs.ref_logp and "ref_logp" in missing:
        raise ValueError(f"{algorithm.name} compares with a reference policy: set Batch.ref_logp.")
    if needs.preference and "chosen" in missing:
        raise ValueError(f"{algorithm.name} trains on preference pairs: set Batch.chosen.")
    if needs.updates > 1 and batch.old_logp is None:
        raise ValueError(
            f"{algorithm.name} makes {needs.updates} updates for each collection: set Batch.old_logp, the log-probs of "
            "the policy at collection. None means the current policy, which holds for one update only."
        )
    for penalty in algorithm.penalties:
        quantity = quantities[penalty.quantity]
        if quantity is None or quantity.shape != logp.shape:
            raise ValueError(f"{algorithm.name} has a penalty on {penalty.quantity}: pass {penalty.quantity}=, [B, T].")
