"""Steps of which no update is made, since something in them is not finite: what was at fault, and when that is the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from posttrain.distributed import ranks
from posttrain.errors import NonFiniteError
from posttrain.learner import Micro, Step
from posttrain.metrics import JsonLines

LIMIT = 3  # steps in a row; one bad batch passes, a run that has gone wrong does not recover


class NonFinite:
    """Notes steps without an update in `nonfinite/step-NNNNNN.jsonl`, a line for each row at fault.

    Args:
        folder: the run's.
        limit: so many steps in a row are the end.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit, self._in_a_row = folder, limit, 0

    def updated(self) -> None:
        """The step was a sound one."""
        self._in_a_row = 0

    def left_out(self, number: int, what: str, step: Step, finite: Sequence[tuple[Micro, Tensor]]) -> None:
        """No update was made of this step; all ranks say so together.

        Args:
            number: of the step.
            what: is not finite.
            step: whose rows these are.
            finite: this rank's micro-batches, and which of their rows are sound.

        Raises:
            NonFiniteError: it is the last of `limit` such steps in a row.
        """
        self._in_a_row += 1
        found = ranks.gathered([row for micro, sound in finite for row in _at_fault(step, micro, sound)], "the rows at fault")
        rows = [row for share in found for row in share]
        path = self._folder / "nonfinite" / f"step-{number:06d}.jsonl"
        if ranks.rank() == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            JsonLines(path).rewrite({"step": number, "what": what, **row} for row in rows or [{"rows": list(step.where)}])
        if self._in_a_row == self._limit:
            at = ", ".join(list(dict.fromkeys(row["where"] for row in rows) or dict.fromkeys(step.where))[:4])
            raise NonFiniteError(
                f"Step {number}: the {what} is not finite, in {self._in_a_row} steps in a row; no update was made of any of "
                f"them. Its rows: {at}, … (all in {path}). Look at the last lines of metrics.jsonl. The usual cure is a "
                "lower learning_rate or max_grad_norm, in another output_dir."
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
