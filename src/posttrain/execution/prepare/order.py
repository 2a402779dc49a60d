"""The order that a recipe asks for, over the rows that there are; and what a step reads, for the plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from posttrain.data.rows import Example, Problem
from posttrain.recipe import Recipe
from posttrain.settings.data.order import LENGTH, AnyOrder, CategoryOrder, CyclicalOrder, GrowingOrder
from posttrain.telling import tell
from posttrain.train.collect.order import Order, Rule
from posttrain.train.collect.order.rules import Blocked, Cyclical, Interleaved, Keys, Sorted


def rule_of(order: AnyOrder | None, rows: Sequence[Example] | Sequence[Problem]) -> Rule | None:
    """The rule of each pass over these rows, which have the columns that it reads; None where they are in random order."""
    if order is None or isinstance(order, GrowingOrder):
        return None
    if isinstance(order, CategoryOrder):
        _, categories = np.unique([str(value) for value in _values(order, order.by, rows)], return_inverse=True)
        within = None if order.within is None else _keys(order, order.within, rows)
        return (Blocked if order.rule == "blocked" else Interleaved)(categories, within)
    keys = _keys(order, order.by, rows)
    if isinstance(order, CyclicalOrder):
        return Cyclical.growing(keys, least=order.least, factor=order.factor)
    return Sorted(keys if order.rule == "ascending" else -keys)


def _keys(order: AnyOrder, name: str, rows: Sequence[Example] | Sequence[Problem]) -> Keys:
    return np.array(_values(order, name, rows), np.float64)


def _values(order: AnyOrder, name: str, rows: Sequence[Example] | Sequence[Problem]) -> list[Any]:
    if name == LENGTH:
        return [row.tokens for row in rows]
    place = order.columns.index(name)
    return [row.ordered_by[place] for row in rows]


def told_of(recipe: Recipe, rows: Sequence[Example] | Sequence[Problem], rule: Rule | None) -> dict[str, Any]:
    """A row of the plan: by what rows are ordered, and what that is of these."""
    order, what = recipe.data.order, "questions" if recipe.rollout is not None else "rows"
    if order is None or rule is None:
        return {}
    if isinstance(order, CategoryOrder):
        found = f"{len(set(_values(order, order.by, rows)))} categories"
    else:
        keys = _keys(order, order.by, rows)
        found = f"{keys.min():g} to {keys.max():g}"
    passes = {} if len(rule.sizes) == 1 else {f"{what} of each pass, in turn": ", ".join(f"{size:,}" for size in rule.sizes)}
    return {f"order of the {what}": f"{order} ({found}); the same: in random order", **passes}


def fed(order: Order, steps: int, tokens: int, per_row: float) -> dict[str, str]:
    """Rows of the plan, of a run whose steps are of tokens, and whose rows have so many on average: what its steps read."""
    sizes = order.sizes(0, steps)
    return {
        "tokens per step": f"at most {tokens:,}, about {per_row * sum(sizes) / steps:,.0f} on average",
        "rows per step": f"{min(sizes)} to {max(sizes)}, {sum(sizes) / steps:.1f} on average",
    }


def tell_long(tokens: int, rows: Sequence[Example] | Sequence[Problem]) -> None:
    """Where a row has more tokens than a step of tokens may have."""
    if long := [row for row in rows if row.tokens > tokens]:
        tell(
            "tokens-per-step",
            f"training.tokens_per_step: {len(long)} of {len(rows)} rows have more than {tokens} tokens, and each is a step "
            f"of its own; the first is {long[0].where}, of {long[0].tokens}.",
        )
