"""An algorithm as rows of the unified table, for people."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from posttrain.estimator.parts.advantage import given
from posttrain.estimator.parts.credit.baseline import as_given

if TYPE_CHECKING:
    from posttrain.estimator.algorithm import Algorithm


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
