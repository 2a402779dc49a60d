"""`posttrain launch`: a recipe as a job for Docker, Slurm or Kubernetes."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from posttrain.cli.options import Overrides, RecipePath
from posttrain.cli.screen import say
from posttrain.errors import RecipeError


def launch(
    recipe: RecipePath,
    on: Annotated[str, typer.Option(help="docker, slurm or kubernetes.")],
    overrides: Overrides = [],  # noqa: B006  (typer reads the default)
    submit: Annotated[
        bool, typer.Option("--submit", help="Send it, by docker, sbatch or kubectl; else it is printed.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Of the job; the recipe's, if not given.")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    gpus: Annotated[int | None, typer.Option(min=0, help="Of a machine; as many as the recipe needs, if not given.")] = None,
    image: Annotated[str, typer.Option(help="Of containers; docker/Dockerfile builds it.")] = "posttrain:gpu",
    time: Annotated[str, typer.Option(help="Slurm's, DAYS-HH:MM:SS.")] = "1-00:00:00",
    cpus: Annotated[int, typer.Option(min=1, help="Of a machine.")] = 8,
    memory: Annotated[str, typer.Option(help="Of a machine, for Kubernetes.")] = "64Gi",
    claim: Annotated[str, typer.Option(help="Kubernetes' volume claim, for runs and the hub's cache.")] = "posttrain",
    secret: Annotated[str, typer.Option(help="Kubernetes' secret, whose keys are variables.")] = "posttrain",
    option: Annotated[list[str], typer.Option(help="One more line of #SBATCH, or word of docker run.")] = [],  # noqa: B006
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Handed on to `posttrain run`.")] = False,
    allow_unjailed_code: Annotated[bool, typer.Option("--allow-unjailed-code", help="Handed on to `posttrain run`.")] = False,
    allow_remote_engine: Annotated[bool, typer.Option("--allow-remote-engine", help="Handed on to `posttrain run`.")] = False,
    allow_remote_environment: Annotated[
        bool, typer.Option("--allow-remote-environment", help="Handed on to `posttrain run`.")
    ] = False,
) -> None:
    """Print the file of a job that runs RECIPE and goes on after an interruption (exit code 75); send it, if told to."""
    from posttrain.execution.launch.jobs import SENT_BY, Job, Place, gpus_of, rendered, send
    from posttrain.recipe import load_recipe
    from posttrain.recipe.by_name import is_shipped, recipe_file

    place: Place | None = next((one for one in SENT_BY if one == on), None)
    if place is None:
        raise RecipeError(f"--on {on}: one of {', '.join(SENT_BY)} is expected.")
    path, checked = recipe_file(recipe), load_recipe(recipe, overrides)
    job = Job(
        name=name or re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).lstrip("-0123456789")[:53].strip("-") or "posttrain",
        nodes=nodes,
        gpus=gpus_of(checked) if gpus is None else gpus,
        image=image,
        time=time,
        cpus=cpus,
        memory=memory,
        claim=claim,
        secret=secret,
        options=option,
    )
    if gpus is not None and 0 < gpus < gpus_of(checked):
        raise RecipeError(f"--gpus {gpus}: the recipe needs {gpus_of(checked)}: its processes, and those of its engine.")
    handed = [word for given in overrides for word in ("--set", given)]
    handed += ["--allow-code"] * allow_code + ["--allow-remote-engine"] * allow_remote_engine
    handed += ["--allow-remote-environment"] * allow_remote_environment
    handed += ["--allow-unjailed-code"] * allow_unjailed_code
    text = rendered(place, job, checked, path, handed, shown=recipe if is_shipped(path) else None)
    if not submit:
        print(text, end="")
        return
    code, said = send(place, text)
    if code:
        raise typer.Exit(code)
    say(said or f"Done: {job.name}")
