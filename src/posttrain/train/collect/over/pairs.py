"""Preference pairs of what the policy has sampled."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch

from posttrain.estimator.batch import Origin
from posttrain.estimator.needs import PairRule
from posttrain.train.collect.collection import Collection, Collector
from posttrain.train.collect.flat import NAMED
from posttrain.train.collect.over.over import Over

Pair = tuple[int, int]
"""The rows of a chosen and a rejected completion."""
JUDGED = ("reward", "reward_mask", "correct")
"""What made pairs of rows, and is no part of them."""


class PairCollector(Over):
    """Makes pairs of the groups that another collector samples.

    Args:
        inner: collects rollouts, each a unit; a question's rows are a group.
        rule: which of them are pairs.
        seed: of the order in which the rule `all` takes them.
    """

    def __init__(self, inner: Collector, rule: PairRule, seed: int) -> None:
        super().__init__(inner)
        self._rule, self._seed = rule, seed

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """See `Collector`; raises what the inner one does."""
        return paired(self._inner.collect(model, step, progress), self._rule, f"{self._seed}/{step}")


def paired(collection: Collection, rule: PairRule, seed: str) -> Collection:
    """The pairs of a collection of rollouts; a row may be of several, and one of none is left out.

    A step of which no question has a pair keeps two of its rows, without loss. Muted rows are of no pair. Rows of no pair are
    still counted, `aside`.
    """
    groups, judged = _groups(collection), Judged.of(collection)
    made = [
        [pair for group in of for pair in _pairs(collection, judged, groups[group], rule, f"{seed}/{group}")]
        for of in _asked(collection)
    ]
    silent = [not pairs for pairs in made]
    filled = [pairs or [_any_two(collection, step)] for pairs, step in zip(made, collection.steps, strict=True)]
    rows = [row for pairs in filled for pair in pairs for row in pair]
    flat, ends = collection.flat.take(rows), np.cumsum([len(pairs) for pairs in filled]).tolist()
    mask = flat.fields["loss_mask"].clone()
    for pairs, end, empty in zip(filled, ends, silent, strict=True):
        for row in range(2 * (end - len(pairs)), 2 * end) if empty else ():
            mask[flat.span(row)] = False
    fields = {name: value for name, value in flat.fields.items() if name not in JUDGED and not name.startswith(NAMED)}
    number = torch.arange(len(rows))
    fields |= {"loss_mask": mask, "chosen": number % 2 == 0, "group": number // 2}
    paired_rows, sampled = set(rows), judged.sampled
    unpaired = (len(row) for i, row in enumerate(collection.rows) if sampled[i] and i not in paired_rows)
    units = tuple((2 * i, 2 * i + 1) for i in range(len(rows) // 2))
    return Collection(
        rows=tuple(collection.rows[row] for row in rows),
        units=units,
        steps=tuple(tuple(range(end - len(pairs), end)) for pairs, end in zip(filled, ends, strict=True)),
        where=tuple(collection.where[chosen] for pairs in filled for chosen, _ in pairs),
        sources=tuple(collection.sources[chosen] for pairs in filled for chosen, _ in pairs),
        flat=dataclasses.replace(flat, fields=fields, unit=2),
        metrics={**collection.metrics, **_metrics(collection, made, len(groups))},
        samples=collection.samples,
        aside=collection.aside + sum(unpaired),
    )


def _groups(collection: Collection) -> dict[int, list[int]]:
    """The rows of each question."""
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(collection.flat.fields["group"].tolist()):
        groups.setdefault(group, []).append(row)
    return groups


def _asked(collection: Collection) -> list[list[int]]:
    """The questions of each step."""
    owner = collection.flat.fields["group"].tolist()
    return [list(dict.fromkeys(owner[row] for unit in step for row in collection.units[unit])) for step in collection.steps]


@dataclass(frozen=True, slots=True)
class Judged:
    """Of each row of a collection its reward, whether that is one, whether the policy wrote it, and whether it is muted."""

    reward: list[float]
    graded: list[bool]
    sampled: list[bool]
    muted: frozenset[int]

    @classmethod
    def of(cls, collection: Collection) -> Judged:
        """Those of a collection of rollouts."""
        flat = collection.flat
        sampled = flat.any(flat.of_tokens("origin") == Origin.ROLLOUT)
        reward, graded = flat.fields["reward"].tolist(), flat.fields["reward_mask"].tolist()
        return cls(reward, graded, sampled.tolist(), frozenset(collection.muted))


def _pairs(collection: Collection, judged: Judged, group: Sequence[int], rule: PairRule, seed: str) -> list[Pair]:
    reward, graded, sampled = judged.reward, judged.graded, judged.sampled
    usable = [row for row in group if sampled[row] and graded[row] and row not in judged.muted]
    highest_first = sorted(usable, key=lambda row: -reward[row])
    shown = [row for row in group if not sampled[row]]
    if rule.rule == "best_worst":
        found = [(highest_first[0], highest_first[-1])] if usable else []
    elif rule.rule == "all":
        found = [(better, worse) for better in usable for worse in usable]
        Random(seed).shuffle(found)
    elif rule.rule == "demonstration":
        found = [(given, row) for given in shown for row in usable]
    else:
        found = [(row, given) for given in shown for row in highest_first]
    ties = rule.given

    def in_order(pair: Pair) -> bool:
        chosen, rejected = pair
        known = graded[chosen] and graded[rejected]
        return not known or reward[chosen] > reward[rejected] or (ties and reward[chosen] == reward[rejected])

    kept = [pair for pair in found if in_order(pair) and not _same(collection, pair)]
    return kept[: rule.at_most]


def _same(collection: Collection, pair: Pair) -> bool:
    chosen, rejected = (collection.rows[row].completion for row in pair)
    return np.array_equal(chosen, rejected)


def _any_two(collection: Collection, step: Sequence[int]) -> Pair:
    first, *others = (row for unit in step for row in collection.units[unit])
    return first, others[0] if others else first


def _metrics(collection: Collection, made: Sequence[Sequence[Pair]], questions: int) -> dict[str, float]:
    pairs, owner = [pair for step in made for pair in step], collection.flat.fields["group"].tolist()
    with_one = len({owner[chosen] for chosen, _ in pairs})
    metrics = {"pairs/per_question": len(pairs) / questions, "pairs/questions_without": 1 - with_one / questions}
    if gaps := list(_gaps(collection, pairs)):
        metrics["pairs/reward_gap"] = float(np.mean(gaps))
    return metrics


def _gaps(collection: Collection, pairs: Sequence[Pair]) -> Iterator[float]:
    reward, graded = collection.flat.fields["reward"].tolist(), collection.flat.fields["reward_mask"].tolist()
    for chosen, rejected in pairs:
        if graded[chosen] and graded[rejected]:
            yield reward[chosen] - reward[rejected]
