"""Steps of which no update is made, since something in them is not finite: what was at fault, and when that is the end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from posttrain.distributed import ranks
from posttrain.errors import NonFiniteError
from posttrain.train.learner import Micro, Step
from posttrain.train.watch.records import JsonLines

LIMIT = 3  # steps in a row; one bad batch passes, a run that has gone wrong does not recover


class NonFinite:
    """Finds what is not finite in a step, and notes steps without an update in `nonfinite/step-NNNNNN.jsonl`, a line for each
    row at fault.

    Args:
        folder: the run's.
        limit: so many steps in a row are the end.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self.in_a_row = 0

    def begin(self, number: int, step: Step) -> None:
        """The optimizer step `number` is `step`."""
        self._number, self._step, self._what = number, step, "norm of the gradient"
        self._seen: list[tuple[Micro, Tensor]] = []

    def see(self, micro: Micro, finite: Tensor) -> None:
        """Which rows of one of its micro-batches are sound, [B]."""
        self._seen.append((micro, finite))

    def sound(self, loss: Tensor) -> Bool[Tensor, ""]:
        """Whether all rows, and the loss so far, are finite on all ranks; nobody waits for the answer. Before the last
        backward pass: where it is not so, all ranks give that a loss of NaN, so that none makes an update and none waits for
        another.
        """
        here = torch.stack([finite.all() for _, finite in self._seen]).all() & loss.isfinite()
        return ranks.all_of(here, f"whether step {self._number} is finite")

    def finish(self, norm: float, *, sound: bool) -> None:
        """Ends the step, by the norm of its gradient over all ranks, and what `sound` has said of it.

        Raises:
            NonFiniteError: no update was made of it, the last of `limit` such steps in a row.
        """
        if not sound:
            self._what = "loss, or an advantage or reward of it,"
        self.in_a_row = 0 if math.isfinite(norm) else self.in_a_row + 1
        if not self.in_a_row:
            return
        found = ranks.all_gather([row for seen in self._seen for row in _at_fault(self._step, *seen)], "the rows at fault")
        rows = [row for share in found for row in share]
        path = self._folder / "nonfinite" / f"step-{self._number:06d}.jsonl"
        if ranks.is_main():
            path.parent.mkdir(parents=True, exist_ok=True)
            noted = rows or [{"rows": list(self._step.where)}]
            JsonLines(path).rewrite({"step": self._number, "what": self._what, **row} for row in noted)
        if self.in_a_row == self._limit:
            at = ", ".join(list(dict.fromkeys([row["where"] for row in rows] or self._step.where))[:4])
            raise NonFiniteError(
                f"Step {self._number}: the {self._what} is not finite, in {self.in_a_row} steps in a row; no update was "
                f"made of any of them. Its rows: {at}, … (all in {path}). Look at the last lines of metrics.jsonl. The usual "
                "cure is a lower learning_rate or max_grad_norm, in another output_dir."
            )


def _at_fault(step: Step, micro: Micro, finite: Tensor) -> list[dict[str, Any]]:
    collection, sound = step.collection, finite.tolist()
    rows = [(unit, row) for unit in micro for row in collection.units[unit]]
    return [
        {
            "where": collection.where[unit],
            "prompt": collection.rows[row].prompt.tolist(),
            "completion": collection.rows[row].completion.tolist(),
        }
        for (unit, row), ok in zip(rows, sound, strict=False)  # an empty micro-batch reads a row all the same
        if not ok
    ]
