"""Coefficients that follow what is measured of each collection: their state, which checkpoints keep."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from posttrain.estimator.parts.coefficient import Adaptive
from posttrain.train.collect.collection import Collection

NO_STATE: Mapping[str, Mapping[str, float]] = {"states": {}, "applied": {}}
"""Of a checkpoint from before there were any."""


class Coefficients:
    """Of an algorithm. They are functions of whole collections, which every rank has, and of no cut of them.

    Args:
        adaptive: which there are.
    """

    def __init__(self, adaptive: Sequence[Adaptive]) -> None:
        self._adaptive = adaptive
        self._states = {one.name: one.start for one in adaptive}
        self._applied = dict(self._states)

    def opened(self, collection: Collection, opening: Callable[[Collection], Collection]) -> Collection:
        """The collection, opened with the coefficients as they are; they then follow it. Its metrics have both."""
        if not self._adaptive:
            return opening(collection)
        metrics = {**collection.metrics, **self._applied}
        opened = opening(dataclasses.replace(collection, flat=collection.flat.replace(coefficients=dict(self._applied))))
        whole = opened.flat.batch()
        for one in self._adaptive:
            measured = float(one.measure(whole))
            if math.isfinite(measured):  # else nothing was sampled that carries loss
                metrics[f"{one.name}/measured"] = measured
                self._states[one.name], self._applied[one.name] = one.rule(self._states[one.name], measured)
        return dataclasses.replace(opened, metrics=metrics)

    def state(self) -> dict[str, dict[str, float]]:
        """What a run goes on from."""
        return {"states": dict(self._states), "applied": dict(self._applied)}

    def restore(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """As they were."""
        self._states.update(state["states"])
        self._applied.update(state["applied"])
