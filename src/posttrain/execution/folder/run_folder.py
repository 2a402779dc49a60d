"""The folder of a run: what is in it, what a checkpoint goes on from, and files that are written whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.data.rows import DataReport
from posttrain.errors import CheckpointError
from posttrain.execution.folder.lock import LOCK
from posttrain.execution.folder.same_recipe import check_folder, check_same_recipe
from posttrain.model.proofs.identity import difference
from posttrain.recipe.recipe import Recipe
from posttrain.telling import tell
from posttrain.train.checkpoint import folders as checkpoints
from posttrain.train.watch.records import JsonLines


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
    for name, own in facts.get("teachers", {}).items():
        then = before.get("teachers", {}).get(name)
        if then is not None and (other := difference(then, own)) is not None:
            raise CheckpointError(
                f"{checkpoint} was trained with another teacher {name}: {other}. Bring it back, or choose another output_dir."
            )
    different = [name for name, digest in facts["data"].items() if data.get(name) != digest]
    if different:
        raise CheckpointError(
            f"{checkpoint} was trained on other data: {', '.join(different)} changed since. Bring them back, or choose "
            "another output_dir."
        )
    then, now = before.get("jails", {}), facts.get("jails", {})
    for name in [name for name in now if then.get(name, now[name]) != now[name]]:
        notes.append(f"Programs of {name} ran in the jail {then[name]} before {checkpoint}, and run in {now[name]} now.")
    changed = [path for path, state in facts.get("code", {}).items() if code.get(path, state) != state]
    return notes + [f"{path} changed since {checkpoint} was written: the run goes on with it as it is." for path in changed]


def clear(folder: Path) -> None:
    """Takes back what a run that never began has written; the folder goes with its lock."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


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
