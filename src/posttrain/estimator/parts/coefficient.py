"""Coefficients that change over the run: `progress in [0, 1] -> float`, or by what is measured of each collection."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import Tensor

from posttrain.estimator.batch import Batch, Origin

MOVED, BOUND = 0.1, 0.2  # K_beta and the bound of the error, of arXiv:1909.08593


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """A coefficient with a state, which whoever trains keeps: what `Batch.coefficients` says under its name, or `start`.

    It is one number for a whole collection: `measure` looks at all its rows, once their log-probs are there, and
    `rule(state, measured)` gives the next state and the coefficient of the next collection.
    """

    name: str
    start: float
    measure: Callable[[Batch], Tensor]
    rule: Callable[[float, float], tuple[float, float]]
    sign: float = 1.0

    def __str__(self) -> str:
        return f"{'-' * (self.sign < 0)}{self.name}"


Coefficient = float | Callable[[float], float] | Adaptive


def coefficient_at(coefficient: Coefficient, batch: Batch) -> float:
    """A coefficient, where the run is at this batch.

    Raises:
        ValueError: it follows what is measured, and whoever trains keeps others, and not this one.
    """
    if isinstance(coefficient, Adaptive):
        kept = batch.coefficients
        if kept is not None and coefficient.name not in kept:
            raise ValueError(
                f"{coefficient.name}: nobody keeps this coefficient: the batch has {', '.join(kept) or 'none'}. Give it as a "
                "coef, or to a credit as an argument of a functools.partial, where it is found."
            )
        return coefficient.sign * (coefficient.start if kept is None else kept[coefficient.name])
    return coefficient(batch.progress) if callable(coefficient) else coefficient


def adaptive_in(part: Any, seen: tuple[Any, ...] = ()) -> list[Adaptive]:
    """Those that a coefficient, or a credit, is made of: arguments of a partial, entries of a tuple, list or mapping, what a
    function closes over, and what a callable object, or that of a method, has for attributes.
    """
    if isinstance(part, Adaptive):
        return [part]
    if any(part is one for one in seen):  # a function may close over itself
        return []
    return [found for one in _inside(part) for found in adaptive_in(one, (*seen, part))]


def _inside(part: Any) -> Sequence[Any]:
    if isinstance(part, partial):
        return (part.func, *part.args, *part.keywords.values())
    if isinstance(part, FunctionType):
        return [cell.cell_contents for cell in part.__closure__ or () if cell != CellType()]  # one may be empty
    if isinstance(part, MethodType):
        return _attributes(part.__self__)
    if isinstance(part, Mapping):
        return [*part.values()]  # type: ignore[reportUnknownVariableType]
    if isinstance(part, tuple | list):
        return part  # type: ignore[reportUnknownVariableType]
    return _attributes(part) if callable(part) and not isinstance(part, type) else ()


def _attributes(holder: Any) -> Sequence[Any]:
    slots = [name for kind in type(holder).__mro__ for name in vars(kind).get("__slots__", ())]
    return [*getattr(holder, "__dict__", {}).values(), *(getattr(holder, name, None) for name in slots)]


def by_name(found: Sequence[Adaptive]) -> dict[str, Adaptive]:
    """Each once.

    Raises:
        ValueError: two of one name follow different rules, and one state is kept.
    """
    named: dict[str, Adaptive] = {}
    for one in found:
        if _followed(named.setdefault(one.name, one)) != _followed(one):
            raise ValueError(
                f"{one.name}: two coefficients of this name follow different rules: give one of them another name"
            )
    return named


def _followed(one: Adaptive) -> tuple[Any, ...]:
    rule = one.rule
    return one.start, one.measure, (rule.func, rule.args, rule.keywords) if isinstance(rule, partial) else rule


def kl_of_collection(batch: Batch) -> Tensor:
    """The mean of log pi - log pi_ref over what was sampled and carries loss: k1, of the policy that collected."""
    collected = batch.old_logp if batch.old_logp is not None else batch.behavior_logp
    if collected is None or batch.ref_logp is None:
        raise ValueError("A KL to the start model is measured with Batch.ref_logp and Batch.behavior_logp (or old_logp).")
    return (collected - batch.ref_logp)[_sampled(batch)].double().mean()


def entropy_of_collection(batch: Batch) -> Tensor:
    """The mean of -log pi over the same tokens: an estimate of the entropy of who sampled them, without bias."""
    if batch.behavior_logp is None:
        raise ValueError("The entropy of a collection is measured with Batch.behavior_logp.")
    return -batch.behavior_logp[_sampled(batch)].double().mean()


def _sampled(batch: Batch) -> Tensor:
    return batch.loss_mask & (batch.origin == Origin.ROLLOUT)


def towards_kl(state: float, measured: float, *, target: float) -> tuple[float, float]:
    """c <- c (1 + 0.1 · clip((KL - target) / target, -0.2, 0.2)) (arXiv:1909.08593, section 2.2)."""
    error = min(max((measured - target) / target, -BOUND), BOUND)
    moved = state * (1 + MOVED * error)
    return moved, moved


def above_entropy(state: float, measured: float, *, target: float, delta: float, most: float) -> tuple[float, float]:
    """c <- c + delta where the entropy is at most the target, else c - delta, within [0, most]; the coefficient is c where it
    is at most the target, and else 0 (Skywork-OR1, arXiv:2505.22312).
    """
    low = measured <= target
    moved = min(max(state + (delta if low else -delta), 0.0), most)
    return moved, moved if low else 0.0


def warmup_cosine(progress: float, *, peak: float, valley: float, warmup: float, decay: float) -> float:
    """Rises linearly to `peak` over `warmup`, falls by a cosine to `valley` over `decay`, and stays; both are shares of the
    run (CHORD, arXiv:2508.11408).
    """
    if progress < warmup:
        return peak * progress / warmup
    along = min((progress - warmup) / decay, 1.0) if decay else 1.0
    return valley + (peak - valley) * (1 + math.cos(math.pi * along)) / 2


def rest(progress: float, *, of: Callable[[float], float]) -> float:
    """1 - the other coefficient."""
    return 1 - of(progress)
