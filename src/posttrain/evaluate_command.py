"""`posttrain eval`: a model or a run's final model, on a set of problems."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from posttrain.data.chat import Encoder
from posttrain.data.config import DataConfig, HubSource, PathSource, Source, TaskSource
from posttrain.data.prepare import problems
from posttrain.data.sources import read
from posttrain.errors import CheckpointError, RecipeError
from posttrain.evaluate import Evaluation, evaluate
from posttrain.metrics import JsonLines
from posttrain.model_config import ModelConfig
from posttrain.models import eos_ids, load
from posttrain.recipe import EvalConfig
from posttrain.rewards.grading import GRADERS, Grader, TaskGrader
from posttrain.rollout.hf import HFEngine
from posttrain.runner import sampling

TASK_ROWS = 256  # problems of a generated task where no limit is given


def evaluate_command(
    model: str,
    data: str,
    options: dict[str, Any],
    limit: int | None,
    columns: list[str],
    grader: str,
    prompt_template: str | None,
    chat_template: bool | None,
    dtype: str,
    output: Path | None,
) -> Table:
    """Evaluates, appends to eval.jsonl, writes the answers beside it, and returns the table.

    Raises:
        RecipeError: an option is wrong.
        PosttrainError: of the kind of what else went wrong.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = Path(model)
    recipe = _recipe_of(folder)
    if recipe is not None and not (folder / "final").is_dir():
        raise RecipeError(f"{folder} is a run without a final model yet. Finish it: posttrain run, the same command.")
    config = _checked(EvalConfig, {**options, "limit": limit}, "option")
    templates = dict((recipe or {}).get("data", {}))
    source = _source(data, templates.pop("eval", {}), columns, limit)
    given = {"prompt_template": prompt_template, "chat_template": chat_template}
    templates.update({name: value for name, value in given.items() if value is not None}, train=source, on_bad_row="skip")
    name = str(folder / "final") if recipe is not None else model
    loaded, tokenizer = load(_checked(ModelConfig, {"name": name, "dtype": dtype}, "option"), seed=0)
    if torch.cuda.is_available():
        loaded = loaded.cuda()
    context = getattr(loaded.config, "max_position_embeddings", None)
    encoder = Encoder(tokenizer, _checked(DataConfig, templates, "option"), eos_ids(loaded, tokenizer), context)
    asked, report = problems(read(source), encoder, skip_bad_rows=True)
    judge = _grader(source, grader)
    started = time.monotonic()
    try:
        engine = HFEngine(loaded, tokenizer)
        result = evaluate(engine, tokenizer, asked[:limit], judge, sampling(config), samples=config.samples, ks=config.k)
    finally:
        judge.close()
    target = output or (folder / "eval.jsonl" if folder.is_dir() else Path("eval.jsonl"))
    settings = {"model": model, "data": data, **options, "limit": limit, "seconds": time.monotonic() - started}
    left_out = {f"data/{reason}": count for reason, count in report.counters.items()}
    JsonLines(target).append({**settings, **left_out, **result.metrics("eval")})
    answers = target.with_name(f"{target.stem}-answers.jsonl")
    answers.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in result.rows()), encoding="utf-8")
    return _table(result, len(asked[:limit]), config.samples, target, answers)


def _recipe_of(folder: Path) -> dict[str, Any] | None:
    if not (folder / "recipe.yaml").is_file():
        return None
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{folder}/recipe.yaml cannot be read: {error}") from None
    if not isinstance(recipe, dict):
        raise CheckpointError(f"{folder}/recipe.yaml is no recipe.")
    return recipe


def _source(data: str, of_run: dict[str, Any], columns: list[str], limit: int | None) -> Any:
    if data in of_run:
        given: dict[str, Any] = dict(of_run[data])
    elif data.startswith("task:"):
        task, _, split = data.removeprefix("task:").partition("/")
        given = {"task": task, "split": split or "held_out", "rows": limit or TASK_ROWS}
    elif data.startswith("hub:"):
        given = {"hub": data.removeprefix("hub:"), "split": "test"}
    else:
        given = {"path": data}
    if columns:
        if not all("=" in pair for pair in columns):
            raise RecipeError("--columns: OURS=THEIRS is expected, for instance prompt=question.")
        given["columns"] = dict(pair.split("=", 1) for pair in columns)
    try:
        return TypeAdapter[PathSource | HubSource | TaskSource](Source).validate_python(given)
    except ValidationError as error:
        raise RecipeError(f"--data {data}: {error.errors()[0]['msg']}") from None


def _grader(source: Any, name: str) -> Grader:
    if isinstance(source, TaskSource):
        return TaskGrader(source.task)
    if name not in GRADERS:
        raise RecipeError(f"--grader {name}: one of {', '.join(GRADERS)} is expected.")
    return GRADERS[name]()


def _checked(kind: Any, values: dict[str, Any], what: str) -> Any:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"{what} {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _table(result: Evaluation, count: int, samples: int, target: Path, answers: Path) -> Table:
    caption = f"{target}, answers in {answers}"
    table = Table("", "mean", "95 % interval", title=f"{count} problems × {samples} samples", caption=caption)
    for name, estimate in result.estimates.items():
        table.add_row(name, f"{estimate.mean:.4g}", f"[{estimate.low:.4g}, {estimate.high:.4g}]")
    for name, share in result.shares.items():
        table.add_row(name, f"{share:.4g}", "")
    return table
