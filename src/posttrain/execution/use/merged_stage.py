"""A stage that merges models: what it makes is evaluated as a trained one is, and is its final model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from posttrain.distributed import ranks
from posttrain.distributed.signals import Interruption
from posttrain.execution.prepare.arguments import training_arguments
from posttrain.execution.prepare.preparation import prepare
from posttrain.execution.training import engine_of, make_trainer, player_of
from posttrain.execution.use.merged import local
from posttrain.model.merging.folder import merge_models
from posttrain.model.proofs import disk
from posttrain.model.saving import withdraw
from posttrain.recipe.recipe import Stage
from posttrain.settings.doors.permissions import Permissions
from posttrain.telling import tell
from posttrain.train.watch.records import Listener, RunFiles

MERGED = "merged"
"""Where it lies until it is evaluated; the sign that a stage is finished is `final`."""


def merge_stage(
    stage: Stage,
    listeners: Sequence[Listener],
    permissions: Permissions,
    interruption: Interruption,
    begun: Callable[[], Any],
) -> None:
    """Merges, proves and evaluates; one that was interrupted does it anew. The first rank merges, and all evaluate.

    Args:
        stage: with `merge`.
        listeners: are told of the evaluation.
        permissions: of code, and of rollout servers elsewhere.
        interruption: by which it ends.
        begun: writes the recipe into the folder.

    Raises:
        SetupError: models do not fit together, or cannot be read.
        CheckpointError: what was merged cannot be written or is not what the formula gives.
    """
    assert stage.merge is not None
    folder = Path(stage.output_dir)
    if ranks.is_main():
        begun()
        withdraw(folder / "final")
        for note in merge_models(stage.merge, [local(place) for place in stage.merge.places], folder / MERGED):
            tell("merge", note)
    ranks.barrier(f"the merged model of {stage.name}")
    _evaluate(stage, folder, listeners, permissions, interruption)
    if ranks.is_main():
        os.replace(folder / MERGED, folder / "final")
        disk.sync(folder)
    ranks.barrier(f"the final model of {stage.name}")


def _evaluate(
    stage: Stage, folder: Path, listeners: Sequence[Listener], permissions: Permissions, interruption: Interruption
) -> None:
    if not (stage.data.evaluated or stage.data.eval_share):
        return
    model = stage.model.model_copy(update={"name": str(folder / MERGED)})
    prepared = prepare(stage.model_copy(update={"model": model}), permissions)
    try:
        arguments = training_arguments(prepared.recipe, prepared.steps, checkpointing=False)
        engine = engine_of(prepared, permissions)
        player = player_of(prepared, engine)
        try:
            if ranks.is_main():
                RunFiles(folder).resume_at(-1)
            trainer = make_trainer(
                prepared, arguments, folder, listeners, engine, None, player, interruption=interruption, facts={}
            )
            with trainer.trackers.kept():
                trainer.evaluate()
        finally:
            if player is not None:
                player.close()
            engine.close()
    finally:
        prepared.close()
