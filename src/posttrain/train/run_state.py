"""What a run remembers beside its model, its optimizer and the generators, and how a checkpoint keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from posttrain.distributed import ranks
from posttrain.errors import CheckpointError
from posttrain.model.frozen.reference import Reference
from posttrain.train.anchor import Anchor
from posttrain.train.checkpoint import collection_file
from posttrain.train.collect.collection import Collection, Collector
from posttrain.train.watch.nonfinite import NonFinite

COLLECTION, AHEAD, REFERENCE = "collection.safetensors", "ahead-", "reference.safetensors"


class RunState:
    """The collector, the collection that steps are made of, and what the loop counts.

    Args:
        collector: remembers over steps what its algorithm asks for.
        nonfinite: counts steps without an update.
    """

    def __init__(self, collector: Collector, nonfinite: NonFinite) -> None:
        self.collector, self.nonfinite = collector, nonfinite
        self.reference: Reference | None = None
        """That follows the policy."""
        self.anchor: Anchor | None = None
        self.opened: Collection | None = None
        """With its advantages."""
        self.saved: int | None = None
        """The step of the last checkpoint."""
        self.evaluation_due = False

    def follow(self, policy: Any, step: int) -> None:
        """Moves the reference after a step, where it moves."""
        if self.reference is not None:
            self.reference.follow(policy, step)

    def save(self, folder: Path, step: int, *, within_collection: bool) -> None:
        """What this rank remembers after `step`; the first one keeps the collection, if the checkpoint lies between two of
        its updates, and those of later steps that are there already or on their way.
        """
        if within_collection and self.opened is not None and ranks.is_main():
            collection_file.save(self.opened, folder / COLLECTION)
        if self.reference is not None and ranks.is_main():
            save_file({name: value.contiguous() for name, value in self.reference.state().items()}, folder / REFERENCE)
        for begins, collection in self.collector.ahead(step).items():
            collection_file.save(collection, folder / f"{AHEAD}{begins:06d}.safetensors")
        remembered = {
            "collector": self.collector.state(),
            "nonfinite": self.nonfinite.in_a_row,
            "evaluation_due": self.evaluation_due,
            "anchor": None if self.anchor is None else self.anchor.state(),
        }
        _file(folder).write_text(json.dumps(remembered))

    def load(self, checkpoint: Path, step: int) -> None:
        """Goes on from a checkpoint of that step.

        Raises:
            CheckpointError: this rank has nothing there, or a reference that has moved is not.
        """
        if not (path := _file(checkpoint)).is_file():
            raise CheckpointError(f"{checkpoint} is none of this trainer's, with {ranks.world()} processes: no {path.name}.")
        if (self.reference is not None) != (checkpoint / REFERENCE).is_file():
            moved = "moved" if self.reference is None else "did not move"
            raise CheckpointError(f"{checkpoint} is of a run whose reference {moved}: go on as it was, or begin another one.")
        remembered = json.loads(path.read_text())
        there = sorted(checkpoint.glob(f"{AHEAD}*.safetensors")) if ranks.is_main() else []
        ahead = {int(path.stem.removeprefix(AHEAD)): collection_file.load(path) for path in there}
        self.collector.restore(remembered["collector"], ahead)
        self.nonfinite.in_a_row = remembered["nonfinite"]
        self.evaluation_due = remembered["evaluation_due"]
        if self.anchor is not None:
            self.anchor.restore(remembered["anchor"])
        if self.reference is not None:
            self.reference.restore(load_file(checkpoint / REFERENCE))
        if (opened := checkpoint / COLLECTION).is_file():
            self.opened = collection_file.load(opened)
        self.saved = step

    def mark(self) -> Any:
        """Where it stands, to come back to: the collector's state, torch's generator, and the anchor."""
        return self.collector.state(), torch.get_rng_state(), None if self.anchor is None else self.anchor.state()

    def come_back(self, mark: Any) -> None:
        """As it was at the mark."""
        self.collector.restore(mark[0])
        torch.set_rng_state(mark[1])
        if self.anchor is not None:
            self.anchor.restore(mark[2])


def _file(folder: Path) -> Path:
    return folder / f"loop_{ranks.rank()}.json"
