"""A recipe → a trained model in a run's folder. `posttrain run` and the library's `run` are this."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from posttrain.distributed import ranks
from posttrain.distributed.signals import Interruption
from posttrain.errors import Interrupted, PosttrainError, SetupError
from posttrain.execution.folder.day import dated, day_of
from posttrain.execution.folder.lock import locked
from posttrain.execution.folder.run_folder import (
    check_facts,
    clear,
    evaluations,
    is_finished,
    newest_checkpoint,
    write_left_out,
)
from posttrain.execution.folder.same_recipe import RECIPE_BY_US, check_folder, check_ground
from posttrain.execution.folder.starts import add as add_start
from posttrain.execution.numbers import on_gpu, settled
from posttrain.execution.planning import planned
from posttrain.execution.prepare.arguments import training_arguments
from posttrain.execution.prepare.before import collected
from posttrain.execution.prepare.preparation import Prepared, prepare
from posttrain.execution.report.leaving import leave_card, leave_page
from posttrain.execution.training import engine_of, make_trainer, player_of, sampled_ahead
from posttrain.execution.use.merged_stage import merge_stage
from posttrain.model.saving import copy_folder, save_model, withdraw
from posttrain.recipe.code import check_permitted
from posttrain.recipe.recipe import Recipe, Stage
from posttrain.settings.doors.permissions import Permissions
from posttrain.telling import Told, hearing, tell
from posttrain.train.trainer import PostTrainer
from posttrain.train.watch.records import Listener, RunFiles, write
from posttrain.train.watch.redaction import redacted

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where the run lies, its last evaluation and training metrics, and whether it had been finished before.

    Names are those of metrics.jsonl and eval.jsonl. `start_metrics` is the evaluation before the first step; `stages` has
    the metrics of each stage by its name, where the recipe has any; `warnings` is what was told, in this process and before.
    """

    output_dir: Path
    metrics: dict[str, float]
    start_metrics: dict[str, float] = field(default_factory=dict[str, float])
    was_finished: bool = False
    stages: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    warnings: tuple[Told, ...] = ()


def run(
    recipe: Recipe,
    *,
    listeners: Sequence[Listener] = (),
    allow_remote_engine: bool = False,
    allow_code: bool = False,
    allow_remote_environment: bool = False,
    allow_unjailed_code: bool = False,
) -> RunResult:
    """Trains as the recipe says; the same call resumes an interrupted run, and does nothing for a finished one.

    Args:
        recipe: from `load_recipe`.
        listeners: are told of steps and evaluations.
        allow_remote_engine: a rollout server on another machine may be used; whoever reaches it can control it.
        allow_code: code that the recipe names by path may run.
        allow_remote_environment: an environment on another machine may play; it reads all that the policy writes.
        allow_unjailed_code: programs that the policy writes may run with limits alone, where there is no jail.

    Raises:
        PosttrainError: of the kind, and with the exit code, of what went wrong.
        Interrupted: a signal came; the same call goes on.
    """
    permissions = Permissions(allow_remote_engine, allow_code, allow_remote_environment, allow_unjailed_code)
    check_permitted(recipe, permissions)
    ranks.join(recipe.distributed.timeout, cpu=not on_gpu(recipe))
    folder = Path(recipe.output_dir)
    check_ground(folder)
    recipe = settled(dated(recipe, ranks.broadcast(day_of(folder), "the day of the run")))
    if ranks.broadcast(is_finished(folder, recipe), "the state of the run's folder"):
        if recipe.stages:
            return _of_stages(recipe, was_finished=True)
        start, last = evaluations(folder)
        return RunResult(folder, last, start, was_finished=True, warnings=RunFiles(folder).warnings())
    with Interruption() as interruption, locked(folder) if ranks.is_main() else contextlib.nullcontext():
        ranks.barrier("the lock of the run's folder")
        with _reported(folder):
            if recipe.stages:
                return _run_stages(recipe, listeners, permissions)
            with hearing() as heard:
                if isinstance(recipe, Stage) and recipe.merge is not None:
                    return _merged(recipe, listeners, permissions, interruption, heard)
                return _run(recipe, listeners, permissions, interruption, heard)


@contextlib.contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """However its body ends, the folder has a page that says how far the run is. Processes that are interrupted together wait
    for it, for the launcher ends the others as soon as one is gone.
    """
    together = False
    try:
        yield
    except Interrupted as ended:
        together = ended.together
        raise
    finally:
        if ranks.is_main():
            leave_page(folder)
        if together:
            ranks.barrier("the page of the run")


def _run(
    recipe: Recipe, listeners: Sequence[Listener], permissions: Permissions, interruption: Interruption, heard: list[Told]
) -> RunResult:
    folder = Path(recipe.output_dir)
    checkpoint = _on_main(newest_checkpoint, folder, recipe)
    untouched = ranks.is_main() and not (folder / "recipe.yaml").is_file()
    prepared = prepare(recipe, permissions)
    trainer: PostTrainer | None = None
    with contextlib.ExitStack() as stack:
        stack.callback(prepared.close)
        checkpointing = prepared.footprint().decide_checkpointing()
        arguments = training_arguments(recipe, prepared.steps, checkpointing=checkpointing)
        try:
            if recipe.data.collect is not None:
                untouched = False  # what is sampled is kept, whatever comes after
                if ranks.is_main():
                    write(folder / "recipe.yaml", _as_yaml(recipe))
                prepared = collected(prepared, folder, permissions, listeners)
                arguments = training_arguments(recipe, prepared.steps, checkpointing=checkpointing)
            engine = engine_of(prepared, permissions)
            stack.callback(engine.close)
            if (ahead := sampled_ahead(recipe)) is not None:
                stack.callback(ahead.close)
            if (player := player_of(prepared, engine)) is not None:
                stack.callback(player.close)
            facts = {**prepared.facts(), "processes": ranks.world()}
            if checkpoint is not None:
                notes = check_facts(checkpoint, facts)
                for sentence in notes:
                    tell("facts", sentence)
            trainer = make_trainer(
                prepared, arguments, folder, listeners, engine, ahead, player, interruption=interruption, facts=facts
            )
            if ranks.is_main():
                withdraw(folder / "final")  # of a run that is longer now
                write(folder / "recipe.yaml", _as_yaml(recipe))
                add_start(folder, step=_step_of(checkpoint), processes=ranks.world())
            if checkpoint is None and ranks.is_main():
                trainer.run_files.resume_at(-1)
                write_left_out(folder, prepared.sets.reports)
            return _finish(trainer, prepared, folder, checkpoint, heard)
        except BaseException:
            if untouched and (trainer is None or not trainer.began):
                clear(folder)
            raise


def _merged(
    stage: Stage, listeners: Sequence[Listener], permissions: Permissions, interruption: Interruption, heard: list[Told]
) -> RunResult:
    folder, files = Path(stage.output_dir), RunFiles(Path(stage.output_dir))
    _on_main(check_folder, folder, stage)
    with _kept(heard, files):
        merge_stage(stage, listeners, permissions, interruption, lambda: write(folder / "recipe.yaml", _as_yaml(stage)))
    if ranks.is_main():
        leave_card(folder)
    start, last = ranks.broadcast(evaluations(folder) if ranks.is_main() else ({}, {}), "the evaluations")
    return RunResult(folder, last, start, warnings=files.warnings())


def _on_main(function: Callable[..., T], *arguments: Any) -> T:
    """What a function gives on the first rank; where it fails, all ranks have that error."""
    found: T | None = None
    error: PosttrainError | None = None
    if ranks.is_main():
        try:
            found = function(*arguments)
        except PosttrainError as raised:
            error = raised
    found, error = ranks.broadcast((found, error), function.__name__.replace("_", " "))
    if error is not None:
        raise error
    return found  # type: ignore[return-value]


def _run_stages(recipe: Recipe, listeners: Sequence[Listener], permissions: Permissions) -> RunResult:
    """Each stage is a run in a folder of its own; the last one's final model is the whole run's.

    Before the first one begins all are checked, so that a later one's data are not found missing after hours of training.
    """
    folder, first = Path(recipe.output_dir), Path(recipe.stages[0].output_dir)
    begun = first.exists()
    _on_main(check_folder, folder, recipe)
    if not begun:
        planned(recipe, permissions)
    ranks.barrier("the state of the run's folder")
    if ranks.is_main():
        withdraw(folder / "final")  # of fewer rounds
        write(folder / "recipe.yaml", _as_yaml(recipe))
    try:
        for number, stage in enumerate(recipe.stages, 1):
            for listener in listeners if ranks.is_main() else ():
                listener.on_stage(stage.name, number, len(recipe.stages))
            run(stage, listeners=listeners, **permissions.as_options)
    except BaseException:
        if ranks.is_main() and not first.exists():
            clear(folder)
        raise
    if ranks.is_main():
        copy_folder(Path(recipe.stages[-1].output_dir) / "final", folder / "final")
        leave_card(folder)
    return _of_stages(recipe, was_finished=False)


def _of_stages(recipe: Recipe, *, was_finished: bool) -> RunResult:
    """What the folders of all stages tell; one that is gone tells nothing."""
    folders = {stage.name: Path(stage.output_dir) for stage in recipe.stages}
    found = {name: evaluations(folder) for name, folder in folders.items()} if ranks.is_main() else {}
    found = ranks.broadcast(found, "the evaluations of the stages")
    last = {name: metrics for name, (_, metrics) in found.items()}
    return RunResult(
        Path(recipe.output_dir),
        last[recipe.stages[-1].name],
        found[recipe.stages[0].name][0],
        was_finished=was_finished,
        stages=last,
        warnings=tuple(told for folder in folders.values() for told in RunFiles(folder).warnings()),
    )


def _as_yaml(recipe: Recipe) -> str:
    return RECIPE_BY_US + yaml.safe_dump(redacted(recipe.model_dump(mode="json")), sort_keys=False)


def _finish(trainer: PostTrainer, prepared: Prepared, folder: Path, checkpoint: Path | None, heard: list[Told]) -> RunResult:
    if checkpoint is not None and ranks.is_main():
        trainer.run_files.resume_at(_step_of(checkpoint))
    with _memory_is_named(), _kept(heard, trainer.run_files), trainer.trackers.kept():
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        every, done = prepared.recipe.eval.every, trainer.state.global_step
        due = trainer.evaluated_at != done and (every is None or done % every)
        if (prepared.sets.held_out or prepared.sets.problems) and due:
            trainer.evaluate()
        save_model(trainer.model, prepared.tokenizer, folder / "final", **prepared.saved)
    if ranks.is_main():
        leave_card(folder)
    start, last = ranks.broadcast(evaluations(folder) if ranks.is_main() else ({}, {}), "the evaluations")
    return RunResult(folder, last, start, warnings=trainer.run_files.warnings())


def _step_of(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.name.partition("-")[2])


@contextlib.contextmanager
def _kept(heard: list[Told], files: RunFiles) -> Iterator[None]:
    """What was heard before and what is heard in its body is in warnings.jsonl."""
    try:
        for told in heard if ranks.is_main() else ():
            files.warn(told)
        yield
    finally:
        for told in heard if ranks.is_main() else ():
            files.warn(told)


@contextlib.contextmanager
def _memory_is_named() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SetupError(
            "The device's memory is full. Lower training.micro_batch_tokens, set training.gradient_checkpointing: true, or "
            f"train an adapter. ({str(error).splitlines()[0]})"
        ) from error
