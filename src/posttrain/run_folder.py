"""The folder of a run: what is in it, whether it is this recipe's, and files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from posttrain.data.rows import DataReport
from posttrain.errors import CheckpointError
from posttrain.metrics import JsonLines
from posttrain.recipe import Recipe


def newest_checkpoint(folder: Path, recipe: Recipe) -> Path | None:
    """The newest checkpoint of an interrupted run, or None to begin.

    Raises:
        CheckpointError: the folder cannot be used, is another recipe's, or its newest checkpoint is broken.
    """
    ground = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not ground.is_dir() or not os.access(ground, os.W_OK):
        kind = "cannot be written to" if ground.is_dir() else "is a file"
        raise CheckpointError(f"{folder}: {ground} {kind}. Choose another output_dir.")
    if not (folder / "recipe.yaml").is_file():
        if folder.exists() and any(folder.iterdir()):
            raise CheckpointError(f"{folder} is not empty and holds no run. Choose another output_dir.")
        return None
    check_same_recipe(folder, recipe)
    numbered = [path for path in folder.glob("checkpoint-*") if path.name.partition("-")[2].isdigit()]
    complete = [path for path in numbered if (path / "trainer_state.json").is_file()]
    newest = max(complete, key=lambda path: int(path.name.partition("-")[2]), default=None)
    if newest is not None:
        _check_readable(newest)
    return newest


def make(folder: Path) -> None:
    """Makes the folder.

    Raises:
        CheckpointError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be made: {error.strerror}. Choose another output_dir.") from None


def clear(folder: Path, *, keep: bool) -> None:
    """Takes back what a run that never began has written; the folder itself stays if it was there before."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not keep:
        folder.rmdir()


def _check_readable(checkpoint: Path) -> None:
    for path in checkpoint.iterdir():
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, "pt"):
                    pass
            elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
                raise ValueError("it is torn")
            elif path.suffix == ".json":
                json.loads(path.read_text())
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(
                f"{path} is broken ({error}). Delete {checkpoint} to resume from the checkpoint before it."
            ) from None


def check_same_recipe(folder: Path, recipe: Recipe) -> None:
    """Whether the folder's run is of this recipe, but for where it lies.

    Raises:
        CheckpointError: it is not, or its recipe cannot be read.
    """
    try:
        values = yaml.safe_load((folder / "recipe.yaml").read_text())
        before = type(recipe).model_validate(values).model_dump(mode="json")  # with the defaults of keys that are newer
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(
            f"{folder}/recipe.yaml is no recipe of this version ({'.'.join(map(str, first['loc']))}: {first['msg']}). "
            "Choose another output_dir."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{folder}/recipe.yaml cannot be read: {error}. Choose another output_dir.") from None
    now = recipe.model_dump(mode="json")
    different = [key for key in {**before, **now} if before.get(key) != now.get(key) and key != "output_dir"]
    if different:
        raise CheckpointError(
            f"{folder} holds a run of another recipe (they differ in {', '.join(different)}). Choose another output_dir."
        )


def evaluations(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """The first and the last evaluation, the last with the metrics of the last step."""
    evaluations, steps = (JsonLines(folder / name).of_steps() for name in ("eval.jsonl", "metrics.jsonl"))
    first, last = (evaluations[0], evaluations[-1]) if evaluations else ({}, {})
    return first, {**(steps[-1] if steps else {}), **last}


def write_left_out(folder: Path, reports: Mapping[str, DataReport]) -> None:
    """`left_out.jsonl`: every record that is not used, or not whole, with its place and the reason."""
    JsonLines(folder / "left_out.jsonl").rewrite(
        {"set": name, "what": counter, "where": where, "reason": reason}
        for name, report in reports.items()
        for counter, where, reason in report.notes
    )
