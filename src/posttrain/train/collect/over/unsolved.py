"""A buffer of the questions that were not solved, whose demonstrations are trained on once there are enough of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from posttrain.estimator.batch import Origin
from posttrain.estimator.needs import Buffer
from posttrain.train.collect.collection import NOTHING, Collection, Collector
from posttrain.train.collect.over.over import Over
from posttrain.train.collect.over.rows import joined, taken
from posttrain.train.collect.rollouts import RolloutCollector


class UnsolvedCollector(Over):
    """Takes the demonstrations out of the groups that another collector samples. Those of questions of which no rollout was
    right wait, and are trained on as `Buffer` says.

    Its state, the rows that wait and the steps that were theirs, is a function of the collections so far, alike on all ranks.

    Args:
        inner: collects rollouts, each a unit; the last row of a question's group is its demonstration, if it has one. Where
            an update has a step of its own it must be a `RolloutCollector`, whose questions do not move with such steps.
        buffer: how many wait, and which go first.
    """

    def __init__(self, inner: Collector, buffer: Buffer) -> None:
        super().__init__(inner)
        self._buffer = buffer
        self._waiting: Collection | None = None
        self._own_steps = 0

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """See `Collector`; raises what the inner one does."""
        if isinstance(self._inner, RolloutCollector):
            sampled = self._inner.collect(model, step, progress, without=self._own_steps)
        else:
            sampled = self._inner.collect(model, step, progress)
        tried, unsolved, share = parted(sampled)
        waiting, size = self._with(unsolved), self._buffer.size
        number = 0 if waiting is None else len(waiting.rows)
        if waiting is not None and number >= size:
            tried = self._followed(tried, taken(waiting, range(size)))
            self._own_steps += self._buffer.step == "own"
            waiting = taken(waiting, range(size, number)) if number > size else None
        self._waiting = waiting
        left = float(number - size if number >= size else number)
        metrics = {**tried.metrics, "rollout/unsolved": share, "rollout/waiting": left}
        return dataclasses.replace(tried, metrics=metrics)

    def state(self) -> dict[str, Any]:
        """See `Collector`: the inner one's, and the steps that asked no question."""
        return {**super().state(), "own_steps": self._own_steps}

    def kept(self) -> Collection | None:
        """See `Collector`: the demonstrations that wait, those that go first in front."""
        return self._waiting

    def restore(
        self, state: Mapping[str, Any], ahead: Mapping[int, Collection] = NOTHING, kept: Collection | None = None
    ) -> None:
        """See `Collector`."""
        super().restore(state, ahead)
        self._waiting, self._own_steps = kept, state["own_steps"]

    def _with(self, unsolved: Collection | None) -> Collection | None:
        """All that wait, in their order."""
        there = [one for one in (unsolved, self._waiting) if one is not None]
        if len(there) < 2:
            return there[0] if there else None
        first, second = there if self._buffer.order == "newest" else reversed(there)
        return joined(first, second, ())

    def _followed(self, tried: Collection, due: Collection) -> Collection:
        """By an update on those that are due, in a step of its own or within the last one."""
        units = tuple(range(len(due.units)))
        own = self._buffer.step == "own"
        before: tuple[tuple[int, ...], ...] = ((),) * (len(tried.steps) - (not own))
        return joined(tried, due, (*before, units))


def parted(sampled: Collection) -> tuple[Collection, Collection | None, float]:
    """What was sampled; the demonstrations of questions with graded rollouts of which none is right; and the share of these
    questions, with a demonstration or without one, among all.
    """
    fields = sampled.flat.fields
    shown = ~sampled.flat.any(sampled.flat.of_tokens("origin") == Origin.ROLLOUT)
    graded, right, owner = (fields[name].tolist() for name in ("reward_mask", "correct", "group"))
    tried = [row for row, alone in enumerate(shown) if not alone]
    solved = {owner[row] for row in tried if graded[row] and right[row]}
    unsolved = {owner[row] for row in tried if graded[row]} - solved
    due = [row for row, alone in enumerate(shown) if alone and graded[row] and owner[row] in unsolved]
    rows = dataclasses.replace(taken(sampled, due), steps=(), metrics={}, samples=()) if due else None
    return taken(sampled, tried), rows, len(unsolved) / len(set(owner))
