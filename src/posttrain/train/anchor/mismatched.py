"""Prompts with completions of other rows: what says how much likelier the policy has made any completion at all."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from posttrain.data.rows import Example, Row
from posttrain.telling import tell
from posttrain.train.anchor.anchor import Gains
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.demonstrations import collect_demonstrations


class MismatchedAnchor:
    """max(0, the mean over the step's rows of what completions of other rows have gained)."""

    def of(self, collection: Collection, gains: Gains, *, follow: bool) -> Float[Tensor, " B"]:
        """See `Anchor`: the step alone says it."""
        others, rows = mismatched(collection), len(collection.rows)
        gained = gains(others)[others.flat.fields["loss_mask"]]
        return (gained.sum() / rows).clamp(min=0).repeat(rows)

    def state(self) -> dict[str, float]:
        """See `Anchor`: nothing."""
        return {}

    def restore(self, state: Mapping[str, float]) -> None:
        """See `Anchor`."""


def mismatched(collection: Collection) -> Collection:
    """Each prompt with the completion of the row before it, the first with the last.

    A completion is cut so that no row is longer than the longest of the collection, which the model can read. One row alone
    has no other completion, and none of its tokens is counted.
    """
    rows = collection.rows
    if len(rows) < 2:
        tell("anchor", "A step of one row has no other completion to compare with: its anchor is 0 (training.rows_per_step).")
    longest = max(map(len, rows))
    examples: list[Example] = []
    for i, row in enumerate(rows):
        before = rows[i - 1]
        room = longest - len(row.prompt)
        mask = before.mask[:room] & (len(rows) > 1)
        other = Row(row.prompt, before.completion[:room], mask)
        examples.append(Example((other,), ""))
    return collect_demonstrations(examples, progress=collection.flat.progress)
