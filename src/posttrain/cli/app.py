"""The command line. Exit codes: 0 done, 2 recipe or usage, 3 data, 4 environment, 5 non-finite, 6 engine, 7 rewards,
8 checkpoint, 75 interrupted.

torch and transformers are imported by the commands that need them, after the recipe has been checked. Of several
processes the first one prints; an error of another is told where the first has none.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from posttrain.distributed.signals import Interruption
from posttrain.errors import Interrupted, PosttrainError, RecipeError
from posttrain.execution.folder.lock import check_unlocked
from posttrain.execution.folder.redaction import redacted

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
out, err = Console(), Console(stderr=True, highlight=False, soft_wrap=True)

PATIENCE = 3.0  # seconds in which a process that has failed ends, and the launcher ends the others
RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe, in YAML.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as a.b=value.")]
AllowRemoteEngine = Annotated[
    bool, typer.Option("--allow-remote-engine", help="A rollout server on another machine may be used.")
]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Reward functions that the recipe names may run.")]


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006  (typer reads the default)
    output_dir: Annotated[str | None, typer.Option(help="In place of the recipe's.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="On this machine, in place of the recipe's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Load everything, print the plan, train nothing.")] = False,
    allow_remote_engine: AllowRemoteEngine = False,
    allow_code: AllowCode = False,
) -> None:
    """Train as RECIPE says; the same command resumes an interrupted run."""
    checked = _recipe(recipe, overrides, output_dir, processes)
    allowed = {"allow_remote_engine": allow_remote_engine, "allow_code": allow_code}
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not dry_run and int(os.environ.get("RANK", "0")) == 0:
        check_unlocked(Path(checked.output_dir))  # before torch is imported
    if _to_be_launched(checked.distributed.processes) and not dry_run:
        from posttrain.distributed.launch import launch

        sys.exit(launch(sys.argv[1:], checked.distributed.processes))
    from posttrain.cli import console
    from posttrain.execution.runner import plan, run

    if dry_run:
        several = checked.distributed.model_dump(include={"processes", "mode"}) if checked.distributed.processes > 1 else {}
        out.print(console.plan_table({**several, **plan(checked, **allowed)}))
        return
    shown = {one.name: one.rollout.log_completions for one in checked.stages if one.rollout}
    with console.ProgressView(out, checked.rollout.log_completions if checked.rollout else 0, shown) as view:
        result = run(checked, listeners=[view], **allowed)
    if result.was_finished:
        _say(f"{result.output_dir} is finished; nothing was done. Choose another output_dir to run it again.")
    if result.start_metrics:
        after = {f"after {name}": metrics for name, metrics in result.stages.items()} or {"after": result.metrics}
        out.print(console.evaluation_table({"start": result.start_metrics, **after}))
    _say(f"Run: {result.output_dir.resolve()}")


@app.command()
def validate(recipe: RecipePath, overrides: Overrides = []) -> None:  # noqa: B006
    """Check RECIPE without loading anything."""
    checked = _recipe(recipe, overrides)
    names = [stage.algorithm.name for stage in checked.stages] or [checked.algorithm.name]
    _say(f"{recipe} is valid: {', then '.join(names)} on {checked.model.label}.")


@app.command()
def compare(
    what: Annotated[list[str], typer.Argument(metavar="STUDY_OR_RUN…", help="A study, in YAML; or folders of runs.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the study and its runs' recipes, run nothing.")] = False,
    allow_remote_engine: AllowRemoteEngine = False,
    allow_code: AllowCode = False,
) -> None:
    """Run what a study still lacks and write its table and plots; or show what came of runs beside each other."""
    if not any(name.endswith((".yaml", ".yml")) for name in what):
        from posttrain.cli import console
        from posttrain.execution.study.outcome import Outcome

        unknown = [name for name in what if not (Path(name) / "recipe.yaml").is_file()]
        if unknown:
            raise RecipeError(f"compare: {unknown[0]} is neither a study (.yaml) nor the folder of a run.")
        out.print(console.runs_table({name: Outcome.of(Path(name)) for name in what}))
        return
    if len(what) > 1:
        raise RecipeError("compare: one study, or folders of runs, are expected.")
    from posttrain.execution.study.config import load_study

    study = load_study(what[0])
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from posttrain.execution.study.matrix import Matrix

    matrix = Matrix(study)
    if dry_run:
        _say(matrix.check())
        return
    from posttrain.execution.study.execute import execute

    folder = execute(study, say=_say, allow_remote_engine=allow_remote_engine, allow_code=allow_code)
    out.print((folder / "table.md").read_text(), markup=False, soft_wrap=True)
    _say(f"Study: {folder.resolve()}")


@app.command("list")
def list_(what: Annotated[str, typer.Argument(metavar="algorithms|rewards|recipes")]) -> None:
    """Show what there is."""
    listings = {"algorithms": _algorithms, "rewards": _rewards, "recipes": _recipes}
    if what not in listings:
        raise RecipeError(f"list {what}: one of {', '.join(listings)} is expected.")
    out.print(listings[what](), soft_wrap=what == "algorithms")


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from posttrain.recipe.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(), indent=2))


@app.command("eval")
def eval_(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="A run's folder, a model's, or a hub name.")],
    data: Annotated[str, typer.Option(help="A file, hub:NAME:CONFIG:SPLIT, task:NAME:SPLIT, or a set of the run.")],
    samples: Annotated[int, typer.Option(min=1, help="Answers for each problem.")] = 4,
    k: Annotated[list[int], typer.Option("--k", min=1, help="pass@k besides pass@1; may be repeated.")] = [],  # noqa: B006
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    top_p: Annotated[float, typer.Option()] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="The first problems only.")] = None,
    columns: Annotated[list[str], typer.Option(metavar="OURS=THEIRS", help="Names of the data's columns.")] = [],  # noqa: B006
    grader: Annotated[str | None, typer.Option(help="math_verify or exact_match, in place of the run's.")] = None,
    prompt_template: Annotated[str | None, typer.Option(help="In place of the run's; {prompt} by default.")] = None,
    chat_template: Annotated[bool | None, typer.Option(help="In place of the run's; on by default.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    output: Annotated[Path | None, typer.Option(help="eval.jsonl of the run, or here, by default.")] = None,
) -> None:
    """Sample answers, grade them, and give pass@1, pass@k, majority@k and length with 95 % intervals."""
    from posttrain.cli.evaluate import Question, answer

    templates = {"prompt_template": prompt_template, "chat_template": chat_template}
    question = Question(
        model=model,
        data=data,
        settings={
            "samples": samples,
            "k": k,
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "seed": seed,
            "limit": limit,
        },
        columns=columns,
        grader=grader,
        templates={name: value for name, value in templates.items() if value is not None},
        dtype=dtype,
        output=output,
    )
    out.print(answer(question))


def main() -> None:
    """Runs the command; a known error, or a signal, is one message on stderr and its exit code.

    Where one of several processes fails, others fail as well, in the same way or for lack of the one, until the launcher
    ends them. So that the cause is told, and once, rank 0 comes before others, and a known error before a traceback.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    rank = int(os.environ.get("RANK", "0")) if several else 0
    out.quiet = rank > 0
    try:
        with Interruption():
            app()
    except (PosttrainError, Interrupted) as error:
        time.sleep(PATIENCE if rank else 0)
        err.print(f"{error.label} (rank {rank}):" if rank else f"{error.label}:", style="bold red", end=" ")
        err.print(redacted(str(error)), markup=False)
        sys.exit(error.exit_code)
    except Exception:
        time.sleep((2 if rank else 1) * PATIENCE if several else 0)
        raise


def _to_be_launched(processes: int) -> bool:
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
    return here is None and processes > 1


def _say(text: str) -> None:
    out.print(text, markup=False, soft_wrap=True)


def _recipe(path: str, overrides: list[str], output_dir: str | None = None, processes: int | None = None) -> Any:
    from posttrain.recipe.recipe import load_recipe

    if output_dir is not None:
        overrides = [*overrides, f"output_dir={json.dumps(output_dir)}"]
    if processes is not None:
        overrides = [*overrides, f"distributed.processes={processes}"]
    return load_recipe(path, overrides)


def _algorithms() -> Text:
    from posttrain.algorithms import example_values

    formula = "grad = mask · 1/pi_ref · A · grad pi_theta, averaged; one line for each term\n\n"
    return Text(formula + "\n".join(map(repr, example_values())))


def _rewards() -> Table:
    from posttrain.rewards.config import REWARDS

    table = Table(Column("reward", no_wrap=True), "what", "reads", "verdict")
    for name, config in REWARDS.items():
        columns = ", ".join(config.columns) or "no label"
        table.add_row(name, (config.__doc__ or "").splitlines()[0], columns, "can be" if config.says_right else "")
    return table


def _recipes() -> Table:
    found = sorted(Path("recipes").glob("*.yaml"))
    if not found:
        raise RecipeError("There is no folder recipes/ here: it comes with the project's source.")
    table = Table(Column("recipe", no_wrap=True), "what")
    for path in found:
        table.add_row(str(path), path.read_text().splitlines()[0].lstrip("# "))
    return table


if __name__ == "__main__":
    main()
