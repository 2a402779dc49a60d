"""The folder of a run: what is in it, whether it is this recipe's, and files that are written whole or not at all."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from posttrain.data.rows import DataReport
from posttrain.errors import CheckpointError
from posttrain.execution.folder.day import dated
from posttrain.execution.folder.lock import LOCK
from posttrain.execution.folder.redaction import redacted
from posttrain.model.proofs.identity import difference
from posttrain.recipe.recipe import Recipe
from posttrain.settings.faults import faults
from posttrain.telling import tell
from posttrain.train.checkpoint import folders as checkpoints
from posttrain.train.watch.records import JsonLines

MAY_CHANGE = (
    "training.logging_steps",
    "training.report_to",
    "training.save_total_limit",
    "training.stop_when",
    "training.gradient_checkpointing",
    "training.micro_batch_tokens",
    "rollout.log_completions",
)
"""Keys that change nothing of what is trained, but for rounding. `training.max_steps` may grow as well."""
RECIPE_BY_US = "# The recipe of this run with all its keys, written by posttrain.\n"
SIGNS = ("metrics.jsonl", "left_out.jsonl", "collected.jsonl", "final", "checkpoint-*", "*/recipe.yaml")
"""Of a run, beside its recipe."""


def check_ground(folder: Path) -> None:
    """Whether a run can lie here.

    Raises:
        CheckpointError: it cannot.
    """
    ground = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not ground.is_dir() or not os.access(ground, os.W_OK):
        kind = "cannot be written to" if ground.is_dir() else "is a file"
        raise CheckpointError(f"{folder}: {ground} {kind}. Choose another output_dir.")


def make(folder: Path) -> None:
    """Makes the folder.

    Raises:
        CheckpointError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be made: {error.strerror}. Choose another output_dir.") from None


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder holds the finished run of this recipe; one that was to make fewer steps is not.

    Raises:
        CheckpointError: it holds a run of another recipe.
    """
    if not (folder / "final").is_dir():
        return False
    return not check_same_recipe(folder, recipe)


def check_folder(folder: Path, recipe: Recipe) -> bool:
    """Whether a run of this recipe has begun here.

    Raises:
        CheckpointError: the folder is another recipe's, or something else's.
    """
    if (folder / "recipe.yaml").is_file():
        if not (folder / "recipe.yaml").read_bytes().startswith(RECIPE_BY_US.encode()) and not _has_signs(folder):
            raise CheckpointError(
                f"{folder}/recipe.yaml is of no run, and would be overwritten by the run's own. Choose another output_dir."
            )
        check_same_recipe(folder, recipe)
        return True
    if folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
        raise CheckpointError(f"{folder} is not empty and holds no run. Choose another output_dir.")
    return False


def _has_signs(folder: Path) -> bool:
    return any(next(folder.glob(sign), None) for sign in SIGNS)


def newest_checkpoint(folder: Path, recipe: Recipe) -> Path | None:
    """The newest checkpoint of an interrupted run that is as it was written, or None to begin.

    Raises:
        CheckpointError: as `check_folder`; or none of its checkpoints is as it was written.
    """
    if not check_folder(folder, recipe):
        return None
    found = checkpoints.newest(folder, partial(tell, "checkpoint"))
    if found is None and (folder / "final").is_dir():
        raise CheckpointError(
            f"{folder} is finished and has kept no checkpoint (training.save_every: 0) from which more steps could be made. "
            "Choose another output_dir, with final/ as model.name."
        )
    return found


def check_facts(checkpoint: Path, facts: Mapping[str, Any]) -> list[str]:
    """Whether a checkpoint is of this run's data, start model and number of processes; and what is to be told of it.

    Raises:
        CheckpointError: says what is different.
    """
    before = checkpoints.facts_of(checkpoint)
    lacking = [name for name, value in facts.items() if value and name not in before]
    notes = [f"{checkpoint} does not say with which {name} it was made, so that it is not compared." for name in lacking]
    if before.get("processes", facts["processes"]) != facts["processes"]:
        raise CheckpointError(
            f"{checkpoint} was written by {before.get('processes')} processes, and this run has {facts['processes']}. Start "
            "as many, for each has a state of its own, or choose another output_dir."
        )
    data, code = before.get("data", facts["data"]), before.get("code", {})
    if "model" in before and "model" in facts and (other := difference(before["model"], facts["model"])) is not None:
        raise CheckpointError(
            f"{checkpoint} was trained from another start model: {other}. What the run compares with would be another one: "
            "bring the model back, or choose another output_dir."
        )
    different = [name for name, digest in facts["data"].items() if data.get(name) != digest]
    if different:
        raise CheckpointError(
            f"{checkpoint} was trained on other data: {', '.join(different)} changed since. Bring them back, or choose "
            "another output_dir."
        )
    changed = [path for path, state in facts.get("code", {}).items() if code.get(path, state) != state]
    return notes + [f"{path} changed since {checkpoint} was written: the run goes on with it as it is." for path in changed]


def clear(folder: Path) -> None:
    """Takes back what a run that never began has written; the folder goes with its lock."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_same_recipe(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder's run is of this recipe, but for where it lies and how it is notes; True if it is to be longer now.

    Raises:
        CheckpointError: it is not, or its recipe cannot be read.
    """
    try:
        values = yaml.safe_load((folder / "recipe.yaml").read_text())
        before = type(recipe).model_validate(values)  # with the defaults of keys that are newer
    except ValidationError as error:
        raise CheckpointError(
            f"{folder}/recipe.yaml is no recipe of this version ({faults(error)[0]}). Choose another output_dir."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{folder}/recipe.yaml cannot be read: {error}. Choose another output_dir.") from None
    if before.data.date is not None:
        recipe = dated(recipe, before.data.date)
    then, now = (dict(_leaves(redacted(one.model_dump(mode="json")))) for one in (before, recipe))
    different = [key for key in {**then, **now} if then.get(key) != now.get(key) and not _may_change(key)]
    longer = "training.max_steps" in different and (now["training.max_steps"] or 0) > (then["training.max_steps"] or math.inf)
    if different != ["training.max_steps"] * longer:
        notes = "; ".join(f"{key}: {then.get(key, 'absent')} then, {now.get(key, 'absent')} now" for key in different[:4])
        raise CheckpointError(
            f"{folder} holds a run of another recipe ({notes}). Choose another output_dir. Of a run that is there, "
            "training.max_steps may grow, and what is logged may change."
        )
    return longer


def _may_change(key: str) -> bool:
    return key == "output_dir" or any(f".{name}." in f".{key}." for name in MAY_CHANGE)


def _leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, values


def evaluations(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """The first and the last evaluation, the last with the metrics of the last step."""
    evaluations, steps = (_numbers(JsonLines(folder / name).of_steps()) for name in ("eval.jsonl", "metrics.jsonl"))
    first, last = (evaluations[0], evaluations[-1]) if evaluations else ({}, {})
    return first, {**(steps[-1] if steps else {}), **last}


def _numbers(records: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Records in which a null is the number that was not finite."""
    return [{name: math.nan if value is None else value for name, value in record.items()} for record in records]


def write_left_out(folder: Path, reports: Mapping[str, DataReport]) -> None:
    """`left_out.jsonl`: every record that is not used, or not whole, with its place and the reason."""
    JsonLines(folder / "left_out.jsonl").rewrite(
        {"set": name, "what": counter, "where": where, "reason": reason}
        for name, report in reports.items()
        for counter, where, reason in report.notes
    )
