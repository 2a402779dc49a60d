"""Rollouts, and rows of a data set of their own beside them."""

from __future__ import annotations

from typing import Any

from posttrain.train.collect.collection import Collection, Collector
from posttrain.train.collect.over.over import Over
from posttrain.train.collect.over.rows import joined


class BesideDemonstrations(Over):
    """Rollouts, and in each optimizer step rows of a separate set of demonstrations.

    Args:
        rollouts: the collector of rollouts.
        demonstrations: the collector of as many optimizer steps of demonstrations; it remembers nothing.
    """

    def __init__(self, rollouts: Collector, demonstrations: Collector) -> None:
        super().__init__(rollouts)
        self._demonstrations = demonstrations

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """See `Collector`."""
        shown = self._demonstrations.collect(model, step, progress)
        return joined(self._inner.collect(model, step, progress), shown, shown.steps)
