"""What a run remembers beside its model, its optimizer and the generators, and how a checkpoint keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from posttrain.distributed import ranks
from posttrain.errors import CheckpointError
from posttrain.model.adapters.subspaces import keep_subspaces
from posttrain.model.frozen.reference import Reference
from posttrain.train.anchor import Anchor
from posttrain.train.checkpoint import collection_file
from posttrain.train.collect.collection import Collection, Collector
from posttrain.train.updates._applied import Applied
from posttrain.train.watch.coefficients import NO_STATE, Coefficients
from posttrain.train.watch.nonfinite import NonFinite

COLLECTION, AHEAD, KEPT = "collection.safetensors", "ahead-", "kept.safetensors"
REFERENCE, UPDATES = "reference.safetensors", "updates.safetensors"


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
        self.updates = Applied()
        """What happens to gradients and weights beside the optimizer's step."""
        self.anchor: Anchor | None = None
        self.coefficients = Coefficients(())
        self.opened: Collection | None = None
        """With its advantages."""
        self.begins = 0
        """The step that it begins at."""
        self.saved: int | None = None
        """The step of the last checkpoint."""
        self.evaluation_due = False

    def follow(self, policy: Any, step: int) -> None:
        """Brings what an adapter keeps back to its place after a step, and moves the reference, where it moves."""
        keep_subspaces(policy)
        if self.reference is not None:
            self.reference.follow(policy, step)

    def within(self, step: int) -> bool:
        """Whether the collection that is opened has rows for the step after so many."""
        return self.opened is not None and step < self.begins + len(self.opened.steps)

    def save(self, folder: Path, step: int) -> None:
        """What this rank remembers after `step`; the first one keeps the collection, if the checkpoint lies between two of
        its updates, those of later steps that are there already or on their way, and rows that are kept for later ones.
        """
        kept = self.collector.kept()
        if self.opened is not None and self.within(step) and ranks.is_main():
            collection_file.save(self.opened, folder / COLLECTION)
        if kept is not None and ranks.is_main():
            collection_file.save(kept, folder / KEPT)
        if self.reference is not None and ranks.is_main():
            save_file({name: value.contiguous() for name, value in self.reference.state().items()}, folder / REFERENCE)
        if self.updates.any and ranks.is_main():
            save_file({name: value.contiguous() for name, value in self.updates.state().items()}, folder / UPDATES)
        for begins, collection in self.collector.ahead(step).items():
            collection_file.save(collection, folder / f"{AHEAD}{begins:06d}.safetensors")
        remembered = {
            "collector": self.collector.state(),
            "begins": self.begins,
            "keeps": kept is not None,
            "nonfinite": self.nonfinite.in_a_row,
            "evaluation_due": self.evaluation_due,
            "anchor": None if self.anchor is None else self.anchor.state(),
            "coefficients": self.coefficients.state(),
        }
        _file(folder).write_text(json.dumps(remembered))

    def load(self, checkpoint: Path, step: int) -> None:
        """Goes on from a checkpoint of that step.

        Raises:
            CheckpointError: this rank has nothing there, or a reference that has moved, or rows that were kept, are not.
        """
        if not (path := _file(checkpoint)).is_file():
            raise CheckpointError(f"{checkpoint} is none of this trainer's, with {ranks.world()} processes: no {path.name}.")
        if (self.reference is not None) != (checkpoint / REFERENCE).is_file():
            moved = "moved" if self.reference is None else "did not move"
            raise CheckpointError(f"{checkpoint} is of a run whose reference {moved}: go on as it was, or begin another one.")
        if self.updates.any != (checkpoint / UPDATES).is_file():
            others = "no update rules" if self.updates.any else "update rules"
            raise CheckpointError(f"{checkpoint} is of a run with {others}: go on as it was, or begin another one.")
        remembered = json.loads(path.read_text())
        if remembered.get("keeps", False) != (checkpoint / KEPT).is_file():
            raise CheckpointError(
                f"{checkpoint} is not whole: its {KEPT}, rows of earlier steps, is not as {path.name} says."
            )
        there = sorted(checkpoint.glob(f"{AHEAD}*.safetensors")) if ranks.is_main() else []
        ahead = {int(path.stem.removeprefix(AHEAD)): collection_file.load(path) for path in there}
        kept = collection_file.load(checkpoint / KEPT) if remembered.get("keeps", False) else None
        self.collector.restore(remembered["collector"], ahead, kept)
        self.nonfinite.in_a_row = remembered["nonfinite"]
        self.evaluation_due = remembered["evaluation_due"]
        self.coefficients.restore(remembered.get("coefficients", NO_STATE))
        if self.anchor is not None:
            self.anchor.restore(remembered.get("anchor", {}))  # earlier versions had none that remembers
        if self.reference is not None:
            self.reference.restore(load_file(checkpoint / REFERENCE))
        if self.updates.any:
            self.updates.restore(load_file(checkpoint / UPDATES))
        if (opened := checkpoint / COLLECTION).is_file():
            self.opened = collection_file.load(opened)
            self.begins = remembered.get("begins", step - step % len(self.opened.steps))  # of old, all had as many steps
        self.saved = step

    def mark(self) -> Any:
        """Where it stands, to come back to: the collector's state, what it keeps, torch's generator, anchor, coefficients."""
        anchor = None if self.anchor is None else self.anchor.state()
        return self.collector.state(), self.collector.kept(), torch.get_rng_state(), anchor, self.coefficients.state()

    def come_back(self, mark: Any) -> None:
        """As it was at the mark."""
        state, kept, generator, anchor, coefficients = mark
        self.coefficients.restore(coefficients)
        self.collector.restore(state, kept=kept)
        torch.set_rng_state(generator)
        if self.anchor is not None:
            self.anchor.restore(anchor)


def _file(folder: Path) -> Path:
    return folder / f"loop_{ranks.rank()}.json"
