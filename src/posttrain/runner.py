"""A recipe → a trained model in a run's folder. `posttrain run` and the library's `run` are this."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import TrainingArguments, get_scheduler

from posttrain.data.config import TaskSource
from posttrain.errors import PosttrainError, RecipeError, SetupError
from posttrain.evaluate import evaluate
from posttrain.metrics import Listener
from posttrain.preparation import Prepared, prepare
from posttrain.recipe import EvalConfig, Recipe
from posttrain.rewards.grading import GRADERS, Grader, MathVerify, TaskGrader
from posttrain.rollout.engine import Sampling
from posttrain.rollout.hf import HFEngine
from posttrain.run_folder import check_same_recipe, clear, evaluations, make, newest_checkpoint, write, write_left_out
from posttrain.saving import Best, save_model
from posttrain.trainer import PostTrainer

SAVES = 10  # checkpoints of a run where the recipe does not say


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where the run lies, its last evaluation and training metrics, and whether it had been finished before.

    Names are those of metrics.jsonl and eval.jsonl. `start_metrics` is the evaluation before the first step.
    """

    output_dir: Path
    metrics: dict[str, float]
    start_metrics: dict[str, float] = field(default_factory=dict[str, float])
    was_finished: bool = False


def run(recipe: Recipe, *, listeners: Sequence[Listener] = ()) -> RunResult:
    """Trains as the recipe says; the same call resumes an interrupted run, and does nothing for a finished one.

    Raises:
        PosttrainError: of the kind, and with the exit code, of what went wrong.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SetupError("A recipe runs in one process in this version; PostTrainer itself works under torchrun.")
    folder = Path(recipe.output_dir)
    if (folder / "final").is_dir():
        check_same_recipe(folder, recipe)
        start, last = evaluations(folder)
        return RunResult(folder, last, start, was_finished=True)
    checkpoint, existed = newest_checkpoint(folder, recipe), folder.exists()
    untouched = not existed or not any(folder.iterdir())
    prepared = prepare(recipe)
    arguments = training_arguments(recipe, prepared.steps)
    make(folder)
    try:
        trainer = _trainer(prepared, arguments, folder, listeners)
        if checkpoint is None:
            trainer.metric_files.resume_at(-1)
            _begin(trainer, prepared, folder)
    except PosttrainError:
        if untouched:
            clear(folder, keep=existed)
        raise
    return _finish(trainer, prepared, folder, checkpoint)


def plan(recipe: Recipe) -> dict[str, Any]:
    """What `run` would do, after all the checks that it makes; nothing is written.

    Raises:
        PosttrainError: as `run` would.
    """
    newest_checkpoint(Path(recipe.output_dir), recipe)
    prepared = prepare(recipe)
    training_arguments(recipe, prepared.steps)
    return prepared.plan()


def _begin(trainer: PostTrainer, prepared: Prepared, folder: Path) -> None:
    text = yaml.safe_dump(prepared.recipe.model_dump(mode="json"), sort_keys=False)
    write(folder / "recipe.yaml", text)
    write_left_out(folder, prepared.reports)
    if prepared.held_out or prepared.problems:
        with _memory_is_named():
            trainer.evaluate()


def _finish(trainer: PostTrainer, prepared: Prepared, folder: Path, checkpoint: Path | None) -> RunResult:
    if checkpoint is not None:
        trainer.metric_files.resume_at(int(checkpoint.name.partition("-")[2]))
    with _memory_is_named():
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        every = prepared.recipe.eval.every
        if (prepared.held_out or prepared.problems) and (every is None or prepared.steps % every):
            trainer.evaluate()
    save_model(trainer.model, prepared.tokenizer, folder / "final")
    start, last = evaluations(folder)
    return RunResult(folder, last, start)


@contextmanager
def _memory_is_named() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SetupError(
            "The device's memory is full. Lower training.micro_batch_tokens, set training.gradient_checkpointing: true, or "
            f"train an adapter. ({str(error).splitlines()[0]})"
        ) from error


def _trainer(prepared: Prepared, arguments: TrainingArguments, folder: Path, listeners: Sequence[Listener]) -> PostTrainer:
    recipe = prepared.recipe
    start_metrics: dict[str, float] = {}
    for name, report in prepared.reports.items():
        start_metrics.update(report.metrics(f"data/{name}"))
    trainer = PostTrainer(
        prepared.model,
        prepared.algorithm,
        tokenizer=prepared.tokenizer,
        train_dataset=prepared.train,
        eval_dataset=prepared.held_out,
        args=arguments,
        micro_batch_tokens=recipe.training.micro_batch_tokens,
        listeners=listeners,
        sample_evaluation=partial(_sample, prepared, folder) if prepared.problems else None,
        start_metrics=start_metrics,
    )
    if recipe.eval.metric is not None:
        save = partial(save_model, trainer.model, prepared.tokenizer, folder / "best")
        trainer.listeners.append(Best(recipe.eval.metric, folder / "best", save))
    return trainer


def _sample(prepared: Prepared, folder: Path, step: int) -> dict[str, float]:
    config = prepared.recipe.eval
    engine, metrics = HFEngine(prepared.model, prepared.tokenizer), dict[str, float]()
    for name, asked in prepared.problems.items():
        grader = grader_for(prepared.recipe, name)
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
        path = folder / "completions" / f"eval-{name}-step-{step:06d}.jsonl"
        write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in result.rows()))
    return metrics


def sampling(config: EvalConfig) -> Sampling:
    """How a recipe's evaluation samples."""
    return Sampling(max_tokens=config.max_tokens, temperature=config.temperature, top_p=config.top_p, seed=config.seed)


def grader_for(recipe: Recipe, name: str) -> Grader:
    """The grader of an evaluation set: a task's own verifier, the recipe's, or math-verify."""
    source = recipe.data.eval[name]
    if isinstance(source, TaskSource):
        return TaskGrader(source.task)
    return GRADERS[recipe.rewards[0].name]() if recipe.rewards else MathVerify()


def training_arguments(recipe: Recipe, steps: int) -> TrainingArguments:
    """The recipe in transformers' words.

    Raises:
        RecipeError: they contradict each other, or an extra one has a value that cannot be.
        SetupError: this machine cannot do what they ask for.
    """
    training = recipe.training
    every = -(-steps // SAVES) if training.save_every is None else training.save_every
    micro = min(training.micro_batch_rows or training.rows_per_step, training.rows_per_step)
    try:
        arguments = TrainingArguments(
            output_dir=recipe.output_dir,
            max_steps=steps,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=training.rows_per_step // micro,
            learning_rate=training.learning_rate,
            lr_scheduler_type=training.lr_scheduler_type,
            warmup_steps=training.warmup_steps if training.warmup_steps < 1 else round(training.warmup_steps),
            weight_decay=training.weight_decay,
            adam_beta1=training.adam_beta1,
            adam_beta2=training.adam_beta2,
            max_grad_norm=training.max_grad_norm,
            bf16=training.bf16,
            gradient_checkpointing=training.gradient_checkpointing,
            save_strategy="steps" if every else "no",
            save_steps=every or steps,
            save_total_limit=training.save_total_limit,
            eval_strategy="no" if recipe.eval.every is None else "steps",
            eval_steps=recipe.eval.every,
            logging_steps=training.logging_steps,
            report_to=list(training.report_to),
            seed=recipe.seed,
            disable_tqdm=True,
            **training.extra,
        )
        get_scheduler(
            arguments.lr_scheduler_type,
            torch.optim.SGD([torch.zeros(1)]),
            arguments.get_warmup_steps(steps),
            steps,
            arguments.lr_scheduler_kwargs,  # type: ignore[arg-type]
        )
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        hint = " (on a CPU: training.extra: {use_cpu: true})" if "use_cpu" in str(error) else ""
        kind = RecipeError if training.extra and not hint else SetupError
        raise kind(f"training: the arguments do not fit: {error}{hint}") from error
    return arguments
