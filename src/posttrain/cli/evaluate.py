"""`posttrain eval`: a model or a run's final model, on a set of problems."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from posttrain.cli.checked import checked
from posttrain.data.encoding.glue import has_tools
from posttrain.data.reader import Reader
from posttrain.data.sources import Record, read
from posttrain.data.transforms import TransformedData, Transforms
from posttrain.environments.kinds import AnyEnvironment
from posttrain.environments.options import EnvironmentConfig
from posttrain.errors import CheckpointError, RecipeError
from posttrain.execution.evaluation import Evaluation, evaluate
from posttrain.execution.folder.recipe_file import kept_values
from posttrain.execution.folder.run_folder import make
from posttrain.execution.prepare.data.beginnings import Beginnings
from posttrain.execution.prepare.passage import all_of
from posttrain.model.load import context_of, load
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.recipe.code import check_jails, own_paths
from posttrain.rewards.grading import GRADERS
from posttrain.rewards.kinds import AnyReward
from posttrain.rewards.make import Graders
from posttrain.rollout.hf import HFEngine
from posttrain.rollout.make import sampling_of
from posttrain.settings.data import DataConfig, Source
from posttrain.settings.doors.door import Door
from posttrain.settings.doors.permissions import Permissions
from posttrain.settings.evaluation import EvalConfig
from posttrain.settings.faults import faults
from posttrain.settings.model import ModelConfig
from posttrain.telling import tell
from posttrain.train.collect.episodes.make import make_player
from posttrain.train.watch.records import JsonLines

TASK_ROWS = 256  # problems of a generated task or a gym where no limit is given
GYM_SEED = 2**12 - 1  # the last there is


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command was asked.

    settings: fields of `EvalConfig`. columns: ours=theirs. templates: fields of `DataConfig` in place of the run's. unjailed:
    see `Permissions`.
    """

    model: str
    data: str
    settings: dict[str, Any]
    columns: list[str]
    grader: str | None
    reads_cut_off: bool
    templates: dict[str, Any]
    dtype: str
    output: Path | None
    unjailed: bool


def answer(asked: Asked) -> Table:
    """Evaluates, appends to eval.jsonl, writes the answers beside it, and returns the table.

    Raises:
        RecipeError: an option is wrong.
        PosttrainError: of the kind of what else went wrong.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder, config = Path(asked.model), checked(EvalConfig, asked.settings)
    recipe = _recipe_of(folder)
    if recipe is not None and not (folder / "final").is_dir():
        raise RecipeError(f"{folder} is a run without a final model yet. Finish it: posttrain run, the same command.")
    templates = dict((recipe or {}).get("data", {}))
    source = _source(asked, templates.pop("eval", {}))
    records = _transformed(read(source), templates.pop("transforms", []), recipe or {})
    graders = _graders(asked, (recipe or {}).get("rewards", []))
    environment, player = _environment(recipe or {}, unjailed=asked.unjailed), None
    try:
        target = asked.output or (folder / "eval.jsonl" if recipe is not None else Path("eval.jsonl"))
        make(target.absolute().parent)
        templates.update(asked.templates, train=source, on_bad_row="skip")
        name = str(folder / "final") if recipe is not None else asked.model
        model, tokenizer = load(checked(ModelConfig, {"name": name, "dtype": asked.dtype}), seed=0)
        if torch.cuda.is_available():
            model = model.cuda()
        data, engine = checked(DataConfig, templates), HFEngine(model, tokenizer)
        reader = Reader(data, tokenizer, eos_ids(model, tokenizer), context_of(model))
        wanted: dict[str, Any] = {}
        if environment is not None:
            records = Beginnings(environment, (recipe or {}).get("seed", 0), in_words=not has_tools(tokenizer, data)).of(
                records
            )
            wanted = {"needs": () if environment.says_right else ("answer",), "anything": True}
        problems, report = reader.problems(records, label=asked.data, **wanted)
        if environment is not None:
            tools = next((one.columns["tools"] for one in problems if one.columns.get("tools")), None)
            player = make_player(environment, engine, model, tokenizer, data, tools=tools)
            if (recipe or {}).get("eval", {}).get("branch"):
                tell("plain-play", "eval.branch is of a run's own evaluations: here episodes are played plainly.")
        started = time.monotonic()
        result = evaluate(
            engine,
            tokenizer,
            problems[: config.limit],
            graders.of(source),
            sampling_of(config, config.seed),
            samples=config.samples,
            ks=config.k,
            player=player,
        )
    finally:
        if player is not None:
            player.close()
        graders.close()
    settings = {"model": asked.model, "data": asked.data, **asked.settings, "seconds": time.monotonic() - started}
    left_out = {f"data/{reason}": count for reason, count in report.counters.items()}
    JsonLines(target).append({**settings, **left_out, **result.metrics("eval")})
    answers = target.with_name(f"{target.stem}-answers.jsonl")
    JsonLines(answers).rewrite(result.rows())
    return _table(result, config.samples, target, answers)


def _recipe_of(folder: Path) -> dict[str, Any] | None:
    if not (folder / "recipe.yaml").is_file():
        return None
    try:
        recipe = kept_values(folder)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{folder}/recipe.yaml cannot be read: {error}") from None
    if not isinstance(recipe, dict):
        raise CheckpointError(f"{folder}/recipe.yaml is no recipe.")
    return recipe


def _source(asked: Asked, of_run: dict[str, Any]) -> Any:
    kind, *parts = asked.data.split(":")
    if asked.data in of_run:
        given: dict[str, Any] = dict(of_run[asked.data])
    elif kind == "task" and parts:
        rows = asked.settings["limit"] or TASK_ROWS
        given = {**dict(zip(("task", "split"), [*parts, "held_out"], strict=False)), "rows": rows}
    elif kind == "environment":
        rows = asked.settings["limit"] or TASK_ROWS
        given = {"environment": {"rows": rows, "split": (parts or ["held_out"])[0]}}
    elif kind == "gym" and parts:
        given = {"gym": parts[0], "rows": asked.settings["limit"] or TASK_ROWS, "seed": GYM_SEED}
    elif kind == "hub" and parts:
        given = {"split": "test", **dict(zip(("hub", "config", "split"), parts, strict=False))}
    else:
        given = {"path": asked.data}
    if asked.columns:
        if not all("=" in pair for pair in asked.columns):
            raise RecipeError("--columns: OURS=THEIRS is expected, for instance prompt=asked.")
        given["columns"] = dict(pair.split("=", 1) for pair in asked.columns)
    try:
        return TypeAdapter[Source](Source).validate_python(given)
    except ValidationError as error:
        raise RecipeError(f"--data {asked.data}: {faults(error)[0]}") from None


def _transformed(records: Iterator[Record], given: list[Any], of_run: dict[str, Any]) -> Iterator[Record]:
    """As the run asked its evaluation sets."""
    if not given:
        return records
    data = checked(TransformedData, of_run["data"])
    asking = [one for one in data.transforms if "eval" in one.sets]
    if own := [one.path for one in asking if isinstance(one, Door) and not one.trusted]:
        raise RecipeError(f"data.transforms: the run asks by code, {own[0]}, and eval runs none. Evaluate in the run.")
    if asking:
        tell("asked-as-in-the-run", f"Asked as in the run, by data.transforms: {', '.join(one.label for one in asking)}.")
    return Transforms(data.transforms, seed=of_run["seed"], train=lambda: all_of(data, of_run["seed"])).through(
        records, "eval"
    )


def _environment(of_run: dict[str, Any], *, unjailed: bool) -> EnvironmentConfig | None:
    """What the run was played with: it answers here too."""
    if of_run.get("environment") is None:
        return None
    environment: EnvironmentConfig = TypeAdapter[Any](AnyEnvironment).validate_python(of_run["environment"])
    if paths := own_paths(environment):
        raise RecipeError(f"environment: the run plays with code, {paths[0]}, and eval runs none. Evaluate in the run.")
    if environment.other_machine is not None:
        raise RecipeError(
            f"environment: the run plays with {environment.other_machine}, on another machine, which eval asks nothing. "
            "Evaluate in the run."
        )
    check_jails(environment, Permissions(unjailed=unjailed))
    return environment


def _graders(asked: Asked, of_run: list[Any]) -> Graders:
    if asked.grader not in (None, *GRADERS):
        raise RecipeError(f"--grader {asked.grader}: one of {', '.join(GRADERS)} is expected.")
    given = of_run if asked.grader is None else [{"name": asked.grader}]
    if asked.reads_cut_off:
        grading = [one for one in given if one["name"] in GRADERS] or [{"name": "math_verify"}]
        given = [{**one, "reads_cut_off": True} for one in grading]
    try:
        rewards = TypeAdapter(list[AnyReward]).validate_python(given)
    except ValidationError as error:
        raise RecipeError(f"rewards: {faults(error)[0]}") from None
    return Graders(rewards)


def _table(result: Evaluation, samples: int, target: Path, answers: Path) -> Table:
    caption = f"{target}, answers in {answers}"
    if cut := sum(one.finish == "length" for group in result.answers for one in group):
        caption = f"{cut} answers were cut off at --max-tokens\n{caption}"
    table = Table("", "mean", "95 % interval", title=f"{len(result.answers)} problems × {samples} samples", caption=caption)
    for name, estimate in result.estimates.items():
        table.add_row(name, f"{estimate.mean:.4g}", f"[{estimate.low:.4g}, {estimate.high:.4g}]")
    for name, share in result.shares.items():
        table.add_row(name, f"{share:.4g}", "")
    return table
