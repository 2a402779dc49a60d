"""`posttrain compare`: a study, or finished runs beside each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from posttrain.cli.options import AllowCode, AllowRemoteEngine, AllowRemoteEnvironment, AllowUnjailed
from posttrain.cli.screen import out, say
from posttrain.errors import RecipeError


def compare(
    what: Annotated[list[str], typer.Argument(metavar="STUDY_OR_RUN…", help="A study, in YAML; or folders of runs.")],
    tasks: Annotated[str | None, typer.Option(metavar="STAGE=SET,…", help="Of runs: what each stage trains on.")] = None,
    general: Annotated[str | None, typer.Option(metavar="SET,…", help="Sets that no stage trains on.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the study and its runs' recipes, run nothing.")] = False,
    allow_remote_engine: AllowRemoteEngine = False,
    allow_code: AllowCode = False,
    allow_remote_environment: AllowRemoteEnvironment = False,
    allow_unjailed_code: AllowUnjailed = False,
) -> None:
    """Run what a study still lacks and write its table and plots; or show the results of runs beside each other, and with
    --tasks what their stages forget.
    """
    of_stages = _tasks(tasks, general)
    if not any(name.endswith((".yaml", ".yml")) for name in what):
        _runs(what, of_stages, general.split(",") if general is not None else [])
        return
    if of_stages:
        raise RecipeError("compare --tasks: it is of runs that have stages; a study names its tasks in continual.tasks.")
    if len(what) > 1:
        raise RecipeError("compare: one study, or folders of runs, are expected.")
    from posttrain.execution.study.config import load_study

    study = load_study(what[0])
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from posttrain.execution.study.matrix import Matrix
    from posttrain.settings.doors.permissions import Permissions

    permissions = Permissions(allow_remote_engine, allow_code, allow_remote_environment, allow_unjailed_code)
    if dry_run:
        say(Matrix(study).check(permissions))
        return
    from posttrain.execution.study.execute import execute

    folder = execute(study, say=say, permissions=permissions)
    out.print((folder / "table.md").read_text(), markup=False, soft_wrap=True)
    say(f"Study: {folder.resolve()}")


def _runs(what: list[str], tasks: dict[str, str], general: list[str]) -> None:
    from posttrain.cli import console
    from posttrain.execution.study.continual.measures import Continual
    from posttrain.execution.study.outcome import Outcome
    from posttrain.execution.study.paired import compared
    from posttrain.telling import hearing

    unknown = [name for name in what if not (Path(name) / "recipe.yaml").is_file()]
    if unknown:
        raise RecipeError(f"compare: {unknown[0]} is neither a study (.yaml) nor the folder of a run.")
    folders = {name: Path(name) for name in dict.fromkeys(what)}
    if tasks:
        found = {name: Continual.of(folder, tasks, general) for name, folder in folders.items()}
        for name, one in found.items():
            out.print(console.matrix_table(name, one, list(tasks)))
        out.print(console.continual_table(found))
        return
    out.print(console.runs_table({name: Outcome.of(folder) for name, folder in folders.items()}))
    with hearing() as heard:
        pairs = compared(folders)
    if pairs:
        out.print(console.pairs_table(pairs))
    for told in heard:
        say(told.sentence)


def _tasks(tasks: str | None, general: str | None) -> dict[str, str]:
    if tasks is None:
        if general is not None:
            raise RecipeError(f"--general {general}: it goes with --tasks.")
        return {}
    pairs = [part.partition("=") for part in tasks.split(",")]
    if not all(all(pair) for pair in pairs):
        raise RecipeError(f"--tasks {tasks}: STAGE=SET is expected, several with commas, in the order of the stages.")
    if len({stage for stage, _, _ in pairs}) < len(pairs):
        raise RecipeError(f"--tasks {tasks}: each stage once is expected.")
    return {stage: name for stage, _, name in pairs}
