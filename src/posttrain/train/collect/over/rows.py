"""Rows of one collection in another, and some of its rows alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from posttrain.estimator.batch import PER_TOKEN
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.flat import Flat


def joined(one: Collection, other: Collection, steps: Sequence[Sequence[int]]) -> Collection:
    """The rows of one, then of the other, whose groups are others than the first's.

    `steps` are units of the other: for each step of the first those that come to it, and then those of steps of their own.
    """
    rows, units = len(one.rows), len(one.units)
    own = (*one.steps, *((),) * (len(steps) - len(one.steps)))
    return dataclasses.replace(
        one,
        rows=one.rows + other.rows,
        units=one.units + tuple(tuple(row + rows for row in unit) for unit in other.units),
        steps=tuple(mine + tuple(unit + units for unit in more) for mine, more in zip(own, steps, strict=True)),
        where=one.where + other.where,
        sources=one.sources + other.sources,
        flat=_joined(one.flat, other.flat),
        muted=one.muted + tuple(row + rows for row in other.muted),
    )


def _joined(one: Flat, other: Flat) -> Flat:
    """Where the other's rows have no such field they have a reward of 0, and are wrong and graded."""
    fields = {"group": torch.cat([one.fields["group"], other.fields["group"] + one.fields["group"].max() + 1])}
    for name, value in one.fields.items():
        if name in fields:
            continue
        beside = other.get(name)
        if beside is None:
            size = int(other.lengths.sum()) if name in PER_TOKEN and value.dim() == 1 else len(other)
            beside = torch.full((size, *value.shape[1:]), name == "reward_mask", dtype=value.dtype)
        if value.dim() != beside.dim():
            value, beside = (part.of_tokens(name) for part in (one, other))
        fields[name] = torch.cat([value, beside])
    return Flat(np.concatenate([one.lengths, other.lengths]), fields, one.progress)


def taken(collection: Collection, rows: Sequence[int]) -> Collection:
    """These rows alone, each a unit, in the steps that they are of; groups keep their numbers."""
    places = {row: place for place, row in enumerate(rows)}
    return dataclasses.replace(
        collection,
        rows=tuple(collection.rows[row] for row in rows),
        units=tuple((place,) for place in range(len(rows))),
        steps=tuple(tuple(places[row] for row in step if row in places) for step in collection.steps),
        where=tuple(collection.where[row] for row in rows),
        sources=tuple(collection.sources[row] for row in rows),
        flat=collection.flat.take(rows),
        muted=tuple(places[row] for row in collection.muted if row in places),
    )
