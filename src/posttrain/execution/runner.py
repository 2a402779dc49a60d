"""A recipe → a trained model in a run's folder. `posttrain run` and the library's `run` are this."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from transformers import TrainingArguments

from posttrain.distributed import ranks
from posttrain.distributed.signals import Interruption
from posttrain.errors import PosttrainError, SetupError
from posttrain.execution.evaluation import evaluate
from posttrain.execution.folder.best import Best
from posttrain.execution.folder.lock import locked
from posttrain.execution.folder.redaction import redacted
from posttrain.execution.folder.run_folder import (
    check_facts,
    check_folder,
    check_ground,
    clear,
    evaluations,
    is_finished,
    newest_checkpoint,
    write_left_out,
)
from posttrain.execution.prepare.arguments import training_arguments
from posttrain.execution.prepare.preparation import Prepared, prepare, presampled
from posttrain.model.saving import copy_folder, save_model, withdraw
from posttrain.recipe.recipe import Recipe
from posttrain.rewards.make import make_grader, make_rewards
from posttrain.rollout.engine import RolloutEngine
from posttrain.rollout.make import make_engine, rollout_sampling, sampling
from posttrain.train.trainer import PostTrainer
from posttrain.train.watch.records import JsonLines, Listener, write

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where the run lies, its last evaluation and training metrics, and whether it had been finished before.

    Names are those of metrics.jsonl and eval.jsonl. `start_metrics` is the evaluation before the first step; `stages` has
    the metrics of each stage by its name, where the recipe has any.
    """

    output_dir: Path
    metrics: dict[str, float]
    start_metrics: dict[str, float] = field(default_factory=dict[str, float])
    was_finished: bool = False
    stages: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])


def run(
    recipe: Recipe, *, listeners: Sequence[Listener] = (), allow_remote_engine: bool = False, allow_code: bool = False
) -> RunResult:
    """Trains as the recipe says; the same call resumes an interrupted run, and does nothing for a finished one.

    Args:
        recipe: from `load_recipe`.
        listeners: are told of steps and evaluations.
        allow_remote_engine: a rollout server on another machine may be used; whoever reaches it can control it.
        allow_code: reward functions that the recipe names may run.

    Raises:
        PosttrainError: of the kind, and with the exit code, of what went wrong.
        Interrupted: a signal came; the same call goes on.
    """
    allowed = {"allow_remote_engine": allow_remote_engine, "allow_code": allow_code}
    ranks.join(recipe.distributed.timeout, cpu=not torch.cuda.is_available() or recipe.training.extra.get("use_cpu", False))
    folder = Path(recipe.output_dir)
    check_ground(folder)
    if ranks.told(is_finished(folder, recipe), "the state of the run's folder"):
        if recipe.stages:
            return _run_stages(recipe, listeners, allowed)
        start, last = evaluations(folder)
        return RunResult(folder, last, start, was_finished=True)
    with Interruption() as interruption, locked(folder) if ranks.leads() else contextlib.nullcontext():
        ranks.met("the lock of the run's folder")
        if recipe.stages:
            return _run_stages(recipe, listeners, allowed)
        return _run(recipe, listeners, allowed, interruption)


def _run(recipe: Recipe, listeners: Sequence[Listener], allowed: dict[str, bool], interruption: Interruption) -> RunResult:
    folder = Path(recipe.output_dir)
    checkpoint = _told(newest_checkpoint, folder, recipe)
    untouched = ranks.leads() and not (folder / "recipe.yaml").is_file()
    prepared = prepare(recipe, **allowed)
    checkpointing = prepared.footprint().settled()
    arguments = training_arguments(recipe, prepared.steps, checkpointing=checkpointing)
    trainer: PostTrainer | None = None
    with contextlib.ExitStack() as stack:
        try:
            if recipe.data.collect is not None:
                untouched = False  # what is sampled is kept, whatever comes after
                if ranks.leads():
                    write(folder / "recipe.yaml", _as_yaml(recipe))
                prepared = presampled(prepared, folder / "collected.jsonl", allow_remote=allowed["allow_remote_engine"])
                arguments = training_arguments(recipe, prepared.steps, checkpointing=checkpointing)
            engine = make_engine(
                recipe.rollout,
                prepared.model,
                prepared.tokenizer,
                allow_remote=allowed["allow_remote_engine"],
                lockstep=recipe.distributed.mode in ("zero3", "fsdp2") and ranks.world() > 1,
            )
            stack.callback(engine.close)
            facts = {**prepared.facts(), "processes": ranks.world()}
            if checkpoint is not None:
                check_facts(checkpoint, facts)
            trainer = _trainer(prepared, arguments, folder, listeners, engine, stack, interruption=interruption, facts=facts)
            if ranks.leads():
                withdraw(folder / "final")  # of a run that is longer now
                write(folder / "recipe.yaml", _as_yaml(recipe))
            if checkpoint is None and ranks.leads():
                trainer.run_files.resume_at(-1)
                write_left_out(folder, prepared.reports)
            return _finish(trainer, prepared, folder, checkpoint)
        except BaseException:
            if untouched and (trainer is None or not trainer.began):
                clear(folder)
            raise


def _told(function: Callable[..., T], *arguments: Any) -> T:
    """What a function gives on the first rank; where it fails, all ranks have that error."""
    found: T | None = None
    error: PosttrainError | None = None
    if ranks.leads():
        try:
            found = function(*arguments)
        except PosttrainError as raised:
            error = raised
    found, error = ranks.told((found, error), function.__name__.replace("_", " "))
    if error is not None:
        raise error
    return found  # type: ignore[return-value]


def _run_stages(recipe: Recipe, listeners: Sequence[Listener], allowed: dict[str, bool]) -> RunResult:
    """Each stage is a run in a folder of its own; the last one's final model is the whole run's.

    Before the first one begins all are checked, so that a later one's data are not found missing after hours of training.
    """
    folder, first = Path(recipe.output_dir), Path(recipe.stages[0].output_dir)
    finished, begun = (folder / "final").is_dir(), first.exists()
    _told(check_folder, folder, recipe)
    if not begun:
        plan(recipe, **allowed)
    ranks.met("the state of the run's folder")
    if ranks.leads() and not finished:
        write(folder / "recipe.yaml", _as_yaml(recipe))
    results: dict[str, RunResult] = {}
    try:
        for number, stage in enumerate(recipe.stages, 1):
            for listener in listeners if ranks.leads() and not finished else ():
                listener.on_stage(stage.name, number, len(recipe.stages))
            results[stage.name] = run(stage, listeners=listeners, **allowed)
    except BaseException:
        if ranks.leads() and not first.exists():
            clear(folder)
        raise
    if ranks.leads() and not finished:
        copy_folder(Path(recipe.stages[-1].output_dir) / "final", folder / "final")
    metrics = {name: result.metrics for name, result in results.items()}
    start = results[recipe.stages[0].name].start_metrics
    return RunResult(folder, metrics[recipe.stages[-1].name], start, was_finished=finished, stages=metrics)


def plan(recipe: Recipe, *, allow_remote_engine: bool = False, allow_code: bool = False) -> dict[str, Any]:
    """What `run` would do, after all the checks that it makes; nothing is written.

    Raises:
        PosttrainError: as `run` would.
    """
    allowed = {"allow_remote_engine": allow_remote_engine, "allow_code": allow_code}
    check_ground(Path(recipe.output_dir))
    check_folder(Path(recipe.output_dir), recipe)
    if recipe.stages:  # later stages start from models that are not there yet, of the same kind as the first
        stages = {stage.name: stage.model_copy(update={"model": recipe.model, "stages": []}) for stage in recipe.stages}
        plans = {name: plan(stage, **allowed) for name, stage in stages.items()}
        return {f"{name}: {key}": value for name, planned in plans.items() for key, value in planned.items()}
    prepared = prepare(recipe, **allowed)
    training_arguments(recipe, prepared.steps, checkpointing=prepared.footprint().checkpointing.on)
    return prepared.plan()


def _as_yaml(recipe: Recipe) -> str:
    return yaml.safe_dump(redacted(recipe.model_dump(mode="json")), sort_keys=False)


def _finish(trainer: PostTrainer, prepared: Prepared, folder: Path, checkpoint: Path | None) -> RunResult:
    if checkpoint is not None and ranks.leads():
        trainer.run_files.resume_at(int(checkpoint.name.partition("-")[2]))
    with _memory_is_named():
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        every = prepared.recipe.eval.every
        if (prepared.held_out or prepared.problems) and (every is None or trainer.state.global_step % every):
            trainer.evaluate()
    save_model(trainer.model, prepared.tokenizer, folder / "final")
    start, last = ranks.told(evaluations(folder) if ranks.leads() else ({}, {}), "the evaluations")
    return RunResult(folder, last, start)


@contextlib.contextmanager
def _memory_is_named() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SetupError(
            "The device's memory is full. Lower training.micro_batch_tokens, set training.gradient_checkpointing: true, or "
            f"train an adapter. ({str(error).splitlines()[0]})"
        ) from error


def _trainer(
    prepared: Prepared,
    arguments: TrainingArguments,
    folder: Path,
    listeners: Sequence[Listener],
    engine: RolloutEngine,
    stack: contextlib.ExitStack,
    **options: Any,
) -> PostTrainer:
    recipe = prepared.recipe
    start_metrics = {f"data/{name}": value for name, value in prepared.collected.items()}
    for name, report in prepared.reports.items():
        start_metrics.update(report.metrics(f"data/{name}"))
    rollouts: dict[str, Any] = {}
    if recipe.rollout is not None:
        rewards = make_rewards(recipe.rewards, recipe.data.train, max_tokens=recipe.rollout.max_tokens)
        for entry in rewards:
            stack.callback(entry.reward.close)
        rollouts = {
            "demonstrations": prepared.demonstrations,
            "rewards": rewards,
            "engine": engine,
            "sampling": rollout_sampling(recipe.rollout, recipe.seed),
            "mask_cut_off": recipe.rollout.mask_cut_off,
            "resamples": recipe.rollout.resamples,
        }
    trainer = PostTrainer(
        prepared.model,
        prepared.algorithm,
        tokenizer=prepared.tokenizer,
        train_dataset=prepared.train,
        eval_dataset=prepared.held_out,
        args=arguments,
        **recipe.training.model_dump(include={"micro_batch_tokens", "head", "layout"}),
        budget=recipe.training.budget,
        listeners=listeners,
        sample_evaluation=partial(_sample, prepared, folder, engine) if prepared.problems else None,
        start_metrics=start_metrics,
        evaluate_first=bool(prepared.held_out or prepared.problems),
        distributed=recipe.distributed,
        **rollouts,
        **options,
    )
    if recipe.eval.metric is not None:
        save = partial(save_model, trainer.model, prepared.tokenizer, folder / "best")
        trainer.listeners.append(Best(recipe.eval.metric, folder / "best", save))
    return trainer


def _sample(prepared: Prepared, folder: Path, engine: RolloutEngine, step: int) -> dict[str, float]:
    config, metrics = prepared.recipe.eval, dict[str, float]()
    engine.sync(prepared.model, step)
    for name, asked in prepared.problems.items():
        grader = make_grader(prepared.recipe.rewards, prepared.recipe.data.eval[name])
        try:
            result = evaluate(
                engine,
                prepared.tokenizer,
                asked,
                grader,
                sampling(config),
                samples=config.samples,
                ks=config.k,
            )
        finally:
            grader.close()
        metrics.update(result.metrics(f"eval/{name}"))
        if ranks.leads():
            JsonLines(folder / "completions" / f"eval-{name}-step-{step:06d}.jsonl").rewrite(result.rows())
    return metrics
