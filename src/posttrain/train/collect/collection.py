"""What optimizer steps train on, and who collects it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from posttrain.data.rows import Row
from posttrain.estimator.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Collection:
    """Rows of one or several optimizer steps, over all ranks.

    A unit, which stays in one micro-batch, has the batch's rows `units[u]` and comes from `where[u]`; step k trains on the
    units `steps[k]`. Rows of `muted` count for advantages, and carry no loss. `metrics` are of the collecting; `samples` are
    completions to be shown.
    """

    rows: tuple[Row, ...]
    units: tuple[tuple[int, ...], ...]
    steps: tuple[tuple[int, ...], ...]
    where: tuple[str, ...]
    batch: Batch
    muted: tuple[int, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    samples: Sequence[Mapping[str, Any]] = ()


class Collector(Protocol):
    """Gives the collection that begins at an optimizer step: a function of the step, of the model and of its state."""

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """Rows for `needs.updates` optimizer steps, from `step`, the steps done so far."""
        ...

    def state(self) -> dict[str, Any]:
        """What it remembers over steps, for a checkpoint: plain data, as JSON has it."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        ...
