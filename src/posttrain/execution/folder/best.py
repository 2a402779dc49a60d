"""The model with the best value of a metric, kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from posttrain.errors import RecipeError
from posttrain.train.watch.names import LOWER_IS_BETTER
from posttrain.train.watch.records import Listener


class Best(Listener):
    """Keeps the model with the best value of a metric, and the value beside it.

    Args:
        metric: `<set>/<name>`.
        folder: where the best model is kept.
        save: saves the model as it is, with a note.
    """

    def __init__(self, metric: str, folder: Path, save: Callable[[Mapping[str, Any]], None]) -> None:
        self._metric, self._save = metric, save
        self._sign = -1.0 if LOWER_IS_BETTER.search(metric.partition("/")[2]) else 1.0
        note = folder / "note.json"
        self._best = self._sign * json.loads(note.read_text())["value"] if note.is_file() else float("-inf")

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Saves the model if it is better than all before.

        Raises:
            RecipeError: the evaluation has no such metric.
        """
        value = metrics.get(f"eval/{self._metric}")
        if value is None:
            known = ", ".join(sorted(name.removeprefix("eval/") for name in metrics))
            raise RecipeError(f"eval.metric: the evaluation has no {self._metric}; it has {known}.")
        if self._sign * value > self._best:
            self._best = self._sign * value
            self._save({"metric": self._metric, "value": value, "step": step})
