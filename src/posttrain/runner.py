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

import transformers
import yaml
from transformers import TrainingArguments

from posttrain.algorithms import from_config
from posttrain.data.chat import Encoder
from posttrain.data.config import TaskSource
from posttrain.data.prepare import examples, problems
from posttrain.data.rows import DataReport, Example, Problem
from posttrain.data.sources import Record, read
from posttrain.errors import CheckpointError, DataError, SetupError
from posttrain.estimator import Algorithm
from posttrain.evaluate import evaluate
from posttrain.metrics import JsonLines
from posttrain.models import eos_ids, load
from posttrain.recipe import EvalConfig, Recipe
from posttrain.rewards.grading import GRADERS, Grader, MathVerify, TaskGrader
from posttrain.rollout.engine import Sampling
from posttrain.rollout.hf import HFEngine
from posttrain.trainer import Listener, PostTrainer

LOWER_IS_BETTER = re.compile(r"(^|/)(loss|nll|objective|kl)(/|$)")


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where the run lies, its last evaluation and training metrics, and whether it had been finished before."""

    output_dir: Path
    metrics: dict[str, float]
    start_metrics: dict[str, float] = field(default_factory=dict[str, float])
    was_finished: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that training needs, loaded and checked; nothing has been written yet."""

    recipe: Recipe
    algorithm: Algorithm
    model: Any
    tokenizer: Any
    train: list[Example]
    held_out: dict[str, list[Example]]
    problems: dict[str, list[Problem]]
    reports: dict[str, DataReport]

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        training = self.recipe.training
        if training.max_steps is not None:
            return training.max_steps
        return max(1, -(-int((training.epochs or 0) * len(self.train)) // training.rows_per_step))

    def plan(self) -> dict[str, Any]:
        """What the run will do, for a reader."""
        per_row = sum(example.tokens for example in self.train) / len(self.train)
        rows = self.recipe.training.rows_per_step
        return {
            "algorithm": repr(self.algorithm),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "trainable parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "training rows": len(self.train),
            "rows left out": {name: dict(report.counters) for name, report in self.reports.items() if report.counters},
            "evaluation rows": {name: len(rows) for name, rows in {**self.problems, **self.held_out}.items()},
            "rows per step": rows,
            "tokens per step": round(per_row * rows),
            "steps": self.steps,
            "passes over the data": round(self.steps * rows / len(self.train), 2),
            "output": self.recipe.output_dir,
        }


def prepare(recipe: Recipe) -> Prepared:
    """Loads the model and the data of a recipe. Writes nothing.

    Raises:
        SetupError: the model or the tokenizer cannot be used.
        DataError: the data cannot be used.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    algorithm = from_config(recipe.algorithm)
    model, tokenizer = load(recipe.model, seed=recipe.seed)
    limit = getattr(model.config, "max_position_embeddings", None)
    encoder = Encoder(tokenizer, recipe.data, eos_ids(model, tokenizer), limit)
    skip, preference = recipe.data.on_bad_row == "skip", algorithm.needs.preference
    train, report = examples(read(recipe.data.train), encoder, preference=preference, skip_bad_rows=skip)
    reports, held_out, asked = {"train": report}, dict[str, list[Example]](), dict[str, list[Problem]]()
    for name, source in recipe.data.eval.items():
        records = list(read(source))
        if not records:
            raise DataError(f"data.eval.{name} is empty.")
        if recipe.eval.loss and _has(records, ("chosen", "rejected") if preference else ("completion",), "messages"):
            held_out[name], reports[name] = examples(records, encoder, preference=preference, skip_bad_rows=skip)
        if recipe.eval.samples:
            asked[name], reports[f"{name}/problems"] = problems(records, encoder, skip_bad_rows=skip)
            asked[name] = asked[name][: recipe.eval.limit]
        if name not in held_out and name not in asked:
            raise DataError(f"data.eval.{name}: nothing to evaluate: no completions, and eval.samples is 0.")
    return Prepared(recipe, algorithm, model, tokenizer, train, held_out, asked, reports)


def run(recipe: Recipe, *, listeners: Sequence[Listener] = ()) -> RunResult:
    """Trains as the recipe says; the same call resumes an interrupted run, and does nothing for a finished one.

    Raises:
        PosttrainError: of the kind, and with the exit code, of what went wrong.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SetupError("A recipe runs in one process in this version; PostTrainer itself works under torchrun.")
    folder = Path(recipe.output_dir)
    if (folder / "final").is_dir():
        _same_recipe(folder, recipe)
        start, last = _evaluations(folder)
        return RunResult(folder, last, start, was_finished=True)
    checkpoint, fresh = _checkpoint(folder, recipe), not folder.exists()
    prepared = prepare(recipe)
    trainer = _trainer(prepared, folder, listeners)
    _write(folder / "recipe.yaml", yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True), sort_keys=False))
    _write_left_out(folder, prepared.reports)
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
    start, last = _evaluations(folder)
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
        records = _records(folder / "eval.jsonl") if (folder / "best").is_dir() else []
        self._best = max((self._sign * r[self._name] for r in records if self._name in r), default=float("-inf"))

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
        _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in result.rows()))
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


def _checkpoint(folder: Path, recipe: Recipe) -> Path | None:
    """The newest checkpoint of an interrupted run, or None to begin."""
    ground = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not ground.is_dir():
        raise CheckpointError(f"{folder}: {ground} is a file. Choose another output_dir.")
    if not (folder / "recipe.yaml").is_file():
        if folder.exists() and any(folder.iterdir()):
            raise CheckpointError(f"{folder} is not empty and holds no run. Choose another output_dir.")
        return None
    _same_recipe(folder, recipe)
    numbered = [path for path in folder.glob("checkpoint-*") if path.name.partition("-")[2].isdigit()]
    complete = [path for path in numbered if (path / "trainer_state.json").is_file()]
    return max(complete, key=lambda path: int(path.name.partition("-")[2]), default=None)


def _same_recipe(folder: Path, recipe: Recipe) -> None:
    try:
        before = yaml.safe_load((folder / "recipe.yaml").read_text())
        if not isinstance(before, dict):
            raise ValueError("it is no recipe")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{folder}/recipe.yaml cannot be read: {error}. Choose another output_dir.") from None
    now = recipe.model_dump(mode="json", exclude_none=True)
    different = [key for key in {**before, **now} if before.get(key) != now.get(key) and key != "output_dir"]
    if different:
        raise CheckpointError(
            f"{folder} holds a run of another recipe (they differ in {', '.join(different)}). Choose another output_dir."
        )


def _has(records: Sequence[Record], names: tuple[str, ...], or_name: str) -> bool:
    first = next((record.columns for record in records if record.fault is None), {})
    return all(name in first for name in names) or or_name in first


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _evaluations(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """The first and the last evaluation, the last with the metrics of the last step."""
    evaluations, steps = _records(folder / "eval.jsonl"), _records(folder / "metrics.jsonl")
    first, last = (evaluations[0], evaluations[-1]) if evaluations else ({}, {})
    return first, {**(steps[-1] if steps else {}), **last}


def _write_left_out(folder: Path, reports: Mapping[str, DataReport]) -> None:
    """`left_out.jsonl`: every record that is not used, with its place and the reason."""
    left_out = JsonLines(folder / "left_out.jsonl")
    left_out.path.unlink(missing_ok=True)
    for name, report in reports.items():
        for where, reason in report.reasons:
            left_out.append({"set": name, "where": where, "reason": reason})


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.partial")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
