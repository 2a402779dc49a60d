"""`posttrain run`: trains as a recipe says, in one process or in several."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from posttrain.cli.options import (
    AllowCode,
    AllowRemoteEngine,
    AllowRemoteEnvironment,
    AllowUnjailed,
    Overrides,
    RecipePath,
    begun,
    checked_recipe,
    loading,
    summary,
)
from posttrain.cli.screen import out, say
from posttrain.cli.unforeseen import tracebacks_kept_in
from posttrain.errors import RecipeError
from posttrain.settings.doors.permissions import Permissions


def run(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006  (typer reads the default)
    output_dir: Annotated[str | None, typer.Option(help="In place of the recipe's.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="On this machine, in place of the recipe's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Load everything, print the plan, train nothing.")] = False,
    allow_remote_engine: AllowRemoteEngine = False,
    allow_code: AllowCode = False,
    allow_remote_environment: AllowRemoteEnvironment = False,
    allow_unjailed_code: AllowUnjailed = False,
) -> None:
    """Train as RECIPE says; the same command resumes an interrupted run."""
    from posttrain.execution.folder.lock import check_unlocked
    from posttrain.execution.folder.same_recipe import check_folder, check_ground
    from posttrain.recipe.code import check_permitted

    checked = checked_recipe(recipe, overrides, output_dir, processes)
    check_permitted(
        checked, Permissions(code=allow_code, remote_environment=allow_remote_environment, unjailed=allow_unjailed_code)
    )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not dry_run and int(os.environ.get("RANK", "0")) == 0:
        check_unlocked(Path(checked.output_dir))  # before torch is imported
    if int(os.environ.get("RANK", "0")) == 0:
        check_ground(Path(checked.output_dir))
        check_folder(Path(checked.output_dir), checked)
    if "RANK" not in os.environ:
        say(f"{begun()}: {summary(checked)}, in {checked.output_dir}")
        say("loading torch and transformers, which takes a while at first …")
    if to_be_launched(checked.distributed.processes) and not dry_run:
        from posttrain.distributed.launch import launch

        sys.exit(launch(sys.argv[1:], checked.distributed.processes))
    from posttrain.cli import console

    allowed = {
        "allow_remote_engine": allow_remote_engine,
        "allow_code": allow_code,
        "allow_remote_environment": allow_remote_environment,
        "allow_unjailed_code": allow_unjailed_code,
    }
    if dry_run:
        several = checked.distributed.model_dump(include={"processes", "mode"}) if checked.distributed.processes > 1 else {}
        with loading():
            from posttrain.execution.planning import plan
        out.print(console.plan_table({**several, **plan(checked, **allowed)}))
        return
    with loading():
        from posttrain.execution.runner import run

    shown = {one.name: one.rollout.log_completions for one in checked.stages if one.rollout}
    view = console.ProgressView(out, checked.rollout.log_completions if checked.rollout else 0, shown)
    with tracebacks_kept_in(Path(checked.output_dir), beside="recipe.yaml"), view:
        result = run(checked, listeners=[view], **allowed)
    if result.was_finished:
        say(f"{result.output_dir} is finished; nothing was done. Choose another output_dir to run it again.")
    if result.start_metrics:
        after = {f"after {name}": metrics for name, metrics in result.stages.items()} or {"after": result.metrics}
        out.print(console.evaluation_table({"start": result.start_metrics, **after}))
    if result.warnings:
        out.print(console.warnings_table(result.warnings))
    say(f"Run: {result.output_dir.resolve()}")
    for line in ended(result.output_dir) if int(os.environ.get("RANK", "0")) == 0 else ():
        say(line)


def ended(folder: Path) -> list[str]:
    """What a run took, and what one does next."""
    from posttrain.execution.report.curves import number_of
    from posttrain.execution.report.record import Record

    record = Record.of(folder)
    steps, seconds = sum(one.last_step for one in record.stages), sum(one.seconds["steps"] for one in record.stages)
    tokens = ", ".join(f"{number_of(value)} {name}" for name, value in record.tokens.items())
    next_ = f"Next: posttrain chat {folder}, or generate; posttrain eval {folder} --data …"
    return [f"{steps:,} steps in {seconds:.0f} s; tokens: {tokens}. Report: {folder / 'report.html'}", next_]


def to_be_launched(processes: int) -> bool:
    """Whether the recipe asks for several processes, and this is not one of them.

    Raises:
        RecipeError: it is one of another number.
    """
    world = os.environ.get("WORLD_SIZE") if "RANK" in os.environ else None
    here = world and os.environ.get("LOCAL_WORLD_SIZE", world)
    if here is not None and processes not in (1, int(here)):
        raise RecipeError(
            f"distributed.processes: {processes} are asked for, and the launcher has started {here} on this machine. Give "
            "the launcher the same number, or leave it out of the recipe."
        )
    from posttrain.distributed.launch import nodes

    return here is None and (processes > 1 or nodes() > 1)
