"""A recipe → a trained model in a run's folder. `posttrain run` and the library's `run` are this."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainingArguments

from posttrain.data.config import TaskSource
from posttrain.errors import DataError, SetupError
from posttrain.evaluate import evaluate
from posttrain.metrics import Listener
from posttrain.preparation import Prepared, prepare
from posttrain.recipe import EvalConfig, Recipe
from posttrain.rewards.grading import GRADERS, Grader, MathVerify, TaskGrader
from posttrain.rollout.engine import Sampling
from posttrain.rollout.hf import HFEngine
from posttrain.run_folder import check_same_recipe, evaluations, newest_checkpoint, records, write, write_left_out
from posttrain.trainer import PostTrainer

LOWER_IS_BETTER = re.compile(r"(^|/)(loss|nll|objective|kl)(/|$)")


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where the run lies, its last evaluation and training metrics, and whether it had been finished before."""

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
    checkpoint, fresh = newest_checkpoint(folder, recipe), not folder.exists()
    prepared = prepare(recipe)
    trainer = _trainer(prepared, folder, listeners)
    write(folder / "recipe.yaml", yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True), sort_keys=False))
    write_left_out(folder, prepared.reports)
    trainer.metric_files.resume_at(-1 if checkpoint is None else int(checkpoint.name.partition("-")[2]))
    if checkpoint is None:
        try:
            trainer.evaluate()
        except DataError:  # eval.metric names nothing that is measured: known before anything was trained
            if fresh:
                shutil.rmtree(folder)
            raise
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if recipe.eval.every is None or prepared.steps % recipe.eval.every:
        trainer.evaluate()
    save_final(trainer.model, prepared.tokenizer, folder / "final")
    start, last = evaluations(folder)
    return RunResult(folder, last, start)


def save_final(model: Any, tokenizer: Any, folder: Path) -> None:
    """Model and tokenizer, whole or not at all; an adapter is merged into a copy of its base, and kept beside it."""
    partial_folder = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    whole = copy.deepcopy(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model
    whole.save_pretrained(partial_folder)
    tokenizer.save_pretrained(partial_folder)
    if whole is not model:
        model.save_pretrained(partial_folder / "adapter")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial_folder, folder)


def _trainer(prepared: Prepared, folder: Path, listeners: Sequence[Listener]) -> PostTrainer:
    recipe = prepared.recipe
    arguments = _training_arguments(recipe, prepared.steps)
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
        trainer.listeners.append(Best(recipe.eval.metric, folder, partial(_save_best, trainer, prepared, folder)))
    return trainer


def _save_best(trainer: PostTrainer, prepared: Prepared, folder: Path) -> None:
    save_final(trainer.model, prepared.tokenizer, folder / "best")


class Best:
    """Keeps the model with the best value of a metric."""

    def __init__(self, metric: str, folder: Path, save: Callable[[], None]) -> None:
        self._name, self._save = f"eval/{metric}", save
        self._sign = -1.0 if LOWER_IS_BETTER.search(metric) else 1.0
        before = records(folder / "eval.jsonl") if (folder / "best").is_dir() else []
        self._best = max((self._sign * r[self._name] for r in before if self._name in r), default=float("-inf"))

    def on_start(self, step: int, steps: int) -> None:
        """Nothing is measured yet."""

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing is measured at a step."""

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Saves the model if it is better than all before.

        Raises:
            DataError: the evaluation has no such metric.
        """
        if self._name not in metrics:
            known = ", ".join(sorted(name.removeprefix("eval/") for name in metrics))
            raise DataError(f"eval.metric: the evaluation has no {self._name.removeprefix('eval/')}; it has {known}.")
        value = self._sign * metrics[self._name]
        if value > self._best:
            self._best = value
            self._save()


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


def _training_arguments(recipe: Recipe, steps: int) -> TrainingArguments:
    training = recipe.training
    micro = min(training.micro_batch_rows or training.rows_per_step, training.rows_per_step)
    try:
        return TrainingArguments(
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
            save_strategy="no" if training.save_every is None else "steps",
            save_steps=training.save_every or 500,
            save_total_limit=training.save_total_limit,
            eval_strategy="no" if recipe.eval.every is None else "steps",
            eval_steps=recipe.eval.every,
            logging_steps=training.logging_steps,
            report_to=list(training.report_to),
            seed=recipe.seed,
            disable_tqdm=True,
            **training.extra,
        )
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise SetupError(f"The training arguments do not work here: {error}") from error
