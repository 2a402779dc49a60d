"""The one estimator that every algorithm is a row of, and how a row shows itself to people.

    grad = 1_stable · (1 / pi_ref) · A · grad pi_theta                                   (arXiv:2509.04419)
    w_it = sg(mask · correction · A · exp(logp - log pi_ref)),   L = - sum_i sum_t w_it · logp_it · s_i / N

since grad pi = pi · grad log pi. Nothing here knows of vocabularies, models, files, configs or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posttrain.estimator.batch import MAX_LOG_RATIO, Batch, Question, Request
from posttrain.estimator.divergence import Divergence, DivergenceName
from posttrain.estimator.needs import ASKED_BY, Needs
from posttrain.estimator.parts.advantage import given
from posttrain.estimator.parts.average import Average
from posttrain.estimator.parts.average import token as token_average
from posttrain.estimator.parts.coefficient import Adaptive, Coefficient, adaptive_in, by_name, coefficient_at
from posttrain.estimator.parts.correction import none
from posttrain.estimator.parts.credit.baseline import as_given
from posttrain.estimator.parts.mask import fresh_rows, keep
from posttrain.estimator.parts.plan import plain
from posttrain.estimator.parts.select import everything
from posttrain.estimator.view import View

Part = Callable[[View], Tensor]
Mask = Callable[[View, Tensor, Tensor], Tensor]
Select = Callable[[Batch], Tensor]
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
        shape = view.logp.shape
        log_ratio = view.logp - _fitting("denominator", self.denominator, _of(self.denominator, view), shape)
        ratio = log_ratio.clamp(max=MAX_LOG_RATIO).exp().expand(shape)
        advantage = _fitting("advantage", self.advantage, _of(self.advantage, view), shape).expand(shape)
        kept = _fitting("mask", self.mask, _of(self.mask, view, ratio, advantage), shape)
        correction = _fitting("correction", self.correction, _of(self.correction, view), shape)
        value = torch.where(kept, correction * advantage * ratio, 0.0)
        return Weights(value, ratio, kept, (log_ratio > MAX_LOG_RATIO) & view.select)


def _of(part: Callable[..., Tensor], view: View, *more: Tensor) -> Tensor:
    """What a part makes of a view; where it reckons with a field that is not there, the field is named."""
    try:
        return part(view, *more)
    except (TypeError, AttributeError) as error:
        code = getattr(part.func if isinstance(part, partial) else part, "__code__", None)
        read = code.co_names if code is not None else ()
        absent = [name for name in ASKED_BY if name in read and getattr(view, name, view) is None]
        if not absent:
            raise
        how = ", ".join(f"{name} (Needs: {ASKED_BY[name]})" for name in absent)
        raise ValueError(
            f"The part {describe(part)} reads {how}, and the batch has none: its Needs must ask for it."
        ) from error


def _fitting(what: str, part: Callable[..., Tensor], values: Tensor, shape: torch.Size) -> Tensor:
    """What a part gave, if it is one number for each token or for each row: one for all of them would be a slip."""
    given = tuple(values.shape)
    if given not in (tuple(shape), (*shape[:-1], 1)) or (given != tuple(shape) and len(shape) == 1):
        raise ValueError(
            f"The {what} {describe(part)} has the shape {given}, where {tuple(shape)}, one number for each token, or "
            f"{(*shape[:-1], 1)}, one for each row, is expected: a constant is torch.full_like(view.logp, …)."
        )
    return values


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
    """coef · mean of a quantity over the whole vocabulary, which has a gradient of its own and is no row of the table.

    `beta` and `temperature` are of a divergence, from the start model or from a teacher, as `Needs` says.
    """

    name: str
    quantity: Literal["entropy"] | DivergenceName
    coef: Coefficient
    average: Average = token_average
    select: Select = everything
    beta: float = 0.5
    temperature: float = 1.0

    @property
    def divergence(self) -> Divergence | None:
        """How distributions are compared, where they are."""
        if self.quantity == "entropy":
            return None
        return Divergence(name=self.quantity, beta=self.beta, temperature=self.temperature)


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
            shares[part.name] = part.average.share(batch, select)
            shares[f"{part.name}/tokens"] = token_average.count(select)
        return shares

    @property
    def divergence(self) -> Divergence:
        """How whole distributions are compared, where `needs` says that they are.

        Raises:
            ValueError: in two ways, and they are compared once.
        """
        found = {one for penalty in self.penalties if (one := penalty.divergence) is not None}
        if len(found) > 1:
            raise ValueError(f"{self.name}: its penalties compare whole distributions in two ways, and one is made")
        return next(iter(found), Divergence())

    @property
    def adaptive(self) -> tuple[Adaptive, ...]:
        """Its coefficients that follow what is measured, whose state whoever trains keeps.

        Raises:
            ValueError: two of one name follow different rules.
        """
        found = adaptive_in((*(part.coef for part in (*self.terms, *self.penalties)), self.credit))
        return tuple(by_name(found).values())

    @property
    def learns_from_rewards(self) -> bool:
        """Of rollouts, but where a teacher alone says what is learnt."""
        taught = self.needs.teacher != "none" and self.credit is as_given and not self.needs.verdict
        return self.needs.rollouts > 0 and not taught

    @property
    def compares_rewards(self) -> bool:
        """Nothing is learnt of rollouts whose rewards are equal: neither a teacher nor the data say what is better."""
        if self.needs.shows_right and self.credit is as_given:
            return False
        return self.learns_from_rewards and (self.needs.pairs is None or not self.needs.pairs.given)

    @property
    def importance_ratio(self) -> bool:
        """Log-probs are compared with the sampler's or an older policy's: samples must be of the whole distribution."""
        masks = [term.estimator.mask for term in self.terms]
        sampler = any(isinstance(mask, partial) and mask.func is fresh_rows for mask in masks)
        return sampler or self.corrected or self.needs.old_logp or self.needs.older_policy

    @property
    def corrected(self) -> bool:
        """Tokens are weighed by how likely they are to the policy and were to its sampler."""
        return self.needs.corrects or any(term.estimator.correction is not none for term in self.terms)

    def has_signal(self, batch: Batch) -> Bool[Tensor, " B"]:
        """False for the rows that no gradient can come from: no loss mask, or advantage 0 in every term and no penalty.

        Such rows are skipped before the forward pass, after the counts are made: same gradient, less work.
        """
        rows = torch.zeros_like(batch.loss_mask[:, 0])
        for part in (*self.terms, *self.penalties):
            if not coefficient_at(part.coef, batch):
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


def describe(part: Any) -> str:
    """A part as a reader of the table wants it: `ppo_clip(low=0.2, high=0.2)`."""
    if isinstance(part, partial):
        return f"{describe(part.func)}({', '.join(f'{k}={describe(v)}' for k, v in part.keywords.items())})"
    if isinstance(part, tuple):
        return " → ".join(describe(step) for step in part)  # type: ignore[reportUnknownVariableType]
    if callable(part):
        return str(getattr(part, "__name__", part))
    return f"{part:g}" if isinstance(part, float) else str(part)


def table_rows(algorithm: Algorithm) -> Sequence[dict[str, str]]:
    """The algorithm as rows of the unified table, one for each term; penalties stand on the first."""
    penalties = ", ".join(f"{describe(p.coef)} · {p.name}" for p in algorithm.penalties)
    if not algorithm.terms:
        columns = ("term", "mask", "denominator", "correction", "advantage", "likelihood", "average")
        return [{**dict.fromkeys(columns, ""), "penalties": penalties}]
    rows: list[dict[str, str]] = []
    for term in algorithm.terms:
        parts = term.estimator
        advantage = describe(parts.advantage)
        if parts.advantage is given and algorithm.credit is not as_given:
            advantage = describe(algorithm.credit)
        row = {
            "term": term.name if term.coef == 1.0 else f"{describe(term.coef)} · {term.name}",
            "mask": describe(parts.mask),
            "denominator": describe(parts.denominator),
            "correction": describe(parts.correction),
            "advantage": advantage,
            "likelihood": "token",
            "average": repr(term.average),
            "penalties": penalties if not rows else "",
        }
        rows.append(row)
    return rows
