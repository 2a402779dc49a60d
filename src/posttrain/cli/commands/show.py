"""`posttrain show`: one thing of those that `list` names, or a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from posttrain.cli.screen import out, say
from posttrain.errors import RecipeError


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|RUN",
            help="Of a recipe, algorithm, reward, environment, schedule, optimizer, transform; or a run's folder.",
        ),
    ],
    episode: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Of a run with an environment: the Nth of its latest transcripts."),
    ] = None,
) -> None:
    """Show a recipe as it is written, an algorithm, reward, environment, … with its keys, or how far a run is."""
    from posttrain.recipe.by_name import known_recipes, recipe_file

    if (Path(name) / "recipe.yaml").is_file():
        _show_run(Path(name)) if episode is None else _show_episode(Path(name), episode)
        return
    if episode is not None:
        raise RecipeError(f"--episode: transcripts are of a run, and {name} is no run's folder")
    if name in known_recipes():
        out.print(recipe_file(name).read_text(encoding="utf-8"), markup=False, highlight=False, soft_wrap=True, end="")
        return
    found = list(_kinds(name))
    if not found:
        from posttrain.settings.other_names import nearest

        near = nearest(name, [*known_recipes(), *(one for _, members in _members() for one in members)])
        raise RecipeError(
            f"show {name}: no recipe, no algorithm, reward, environment, schedule, optimizer or transform, and no run's "
            f"folder; did you mean {near}?"
        )
    for what, config in found:
        out.print(_keys(f"{what} {name}", config))


def _members() -> Iterator[tuple[str, dict[str, Any]]]:
    from posttrain.algorithms import KIND as ALGORITHMS
    from posttrain.data.transforms import KIND as TRANSFORMS
    from posttrain.environments.kinds import KIND as ENVIRONMENTS
    from posttrain.rewards.kinds import KIND as REWARDS
    from posttrain.train.optimizers import KIND as OPTIMIZERS
    from posttrain.train.schedules import KIND as SCHEDULES

    yield from (
        ("algorithm", dict(ALGORITHMS.members)),
        ("reward", dict(REWARDS.members)),
        ("environment", dict(ENVIRONMENTS.members)),
        ("schedule", dict(SCHEDULES.members)),
        ("optimizer", dict(OPTIMIZERS.members)),
        ("transform", dict(TRANSFORMS.members)),
    )


def _kinds(name: str) -> Iterator[tuple[str, Any]]:
    yield from ((what, members[name]) for what, members in _members() if name in members)


def _keys(title: str, config: Any) -> Table:
    described = " ".join((config.__doc__ or "").split())
    table = Table(
        Column("key", no_wrap=True), "default", "what it is", title=title, caption=described, caption_justify="left"
    )
    for key, field in config.model_fields.items():
        if key != "name":
            default = "needed" if field.is_required() else repr(field.get_default(call_default_factory=True))
            table.add_row(Text(key), Text(default), Text(" ".join((field.description or "").split())))
    return table


def _show_run(folder: Path) -> None:
    from posttrain.execution.report.record import Record
    from posttrain.execution.report.results import result_rows

    record = Record.of(folder)
    stages = " → ".join(stage.algorithm for stage in record.stages)
    say(f"{record.name}: {record.state}; {stages} on {record.model}, {sum(one.last_step for one in record.stages):,} steps")
    results = result_rows([record])
    if results.rows:
        table = Table(Column("", no_wrap=True), *results.columns)
        for name, cells in results.rows:
            table.add_row(name, *cells)
        out.print(table)
    for told in (line for stage in record.stages for line in stage.warnings):
        say(f"warning: {told['sentence']}")


def _show_episode(folder: Path, number: int) -> None:
    from posttrain.execution.report.record import Record

    kept = Record.of(folder).stages[-1].collected(2)
    found = [(step, row) for step in [*kept][-1:] for row in kept[step] if "turns" in row]
    if number > len(found):
        what = f"there are {len(found)} transcripts of its last step" if found else "no transcript of an episode is kept"
        raise RecipeError(f"--episode {number}: {what} in {folder}")
    step, row = found[number - 1]
    out.print(Text(f"step {step}, {row['where']}: {row['prompt']}", style="bold"))
    for turn in row["turns"]:
        own = (turn.get("thinking") or "") + turn["text"]
        out.print(Text(_printable(own), style="green"), Text("" if turn["finish"] == "stop" else " (cut off)", style="dim"))
        for said in turn["others"]:
            out.print(Text(f"  {said.get('name') or said['role']}: {_printable(said['content'])}", style="cyan"))
        if turn["reward"]:
            out.print(Text(f"  paid {turn['reward']:.4g}", style="dim"))
    fault = f" ({row['fault']})" if row.get("fault") else ""
    graded = f"reward {row['reward']:.4g}" if row["graded"] else "not graded"
    out.print(Text(f"{row['end']}{fault}: {graded}, {row['tokens']} tokens of its own", style="bold"))


def _printable(text: str) -> str:
    """Without characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
