"""`posttrain env check`: whether an environment is a function of its rows, whatever is said to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Column, Table
from rich.text import Text

from posttrain.cli.options import AllowCode, AllowRemoteEnvironment, AllowUnjailed
from posttrain.cli.screen import out, say

if TYPE_CHECKING:
    from posttrain.environments.options import EnvironmentConfig

SHOWN = 4  # faults of a policy


def env(
    action: Annotated[Literal["check"], typer.Argument(metavar="check")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of `posttrain list environments`.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the environment, as max_turns=8.")
    ] = None,
    allow_code: AllowCode = False,
    allow_remote_environment: AllowRemoteEnvironment = False,
    allow_unjailed_code: AllowUnjailed = False,
) -> None:
    """Play episodes of an environment with a random and a hostile policy, in two orders and at once, and compare them byte by
    byte: exit code 7 where it fails, or they differ.
    """
    from posttrain.environments.trial import tried
    from posttrain.errors import RewardError
    from posttrain.recipe.code import check_permitted
    from posttrain.recipe.packages import check_of_environment
    from posttrain.settings.doors.permissions import Permissions

    config = _config(name, overrides or [])
    check_permitted(
        config, Permissions(code=allow_code, remote_environment=allow_remote_environment, unjailed=allow_unjailed_code)
    )
    check_of_environment(config)
    trials = tried(config)
    table = Table(Column("policy", no_wrap=True), "episodes", "turns", "done", "right", "paid", "faults")
    for trial in trials:
        number = len(trial.episodes)
        turns = sum(max(0, len(one.lines) - 1) for one in trial.episodes) / number
        done, right = (sum(getattr(one, what) for one in trial.episodes) for what in ("done", "right"))
        paid = sum(one.paid for one in trial.episodes) / number
        cells = (trial.policy, number, f"{turns:.1f}", done, right, f"{paid:.2f}", len(trial.faults))
        table.add_row(*(Text(str(cell)) for cell in cells))
    out.print(table)
    faults = [f"{trial.policy}: {fault}" for trial in trials for fault in trial.faults[:SHOWN]]
    for fault in faults:
        say(fault)
    if faults:
        raise RewardError(
            f"env check {name}: it fails, or is no function of its rows: docs/environments.md says what it may answer."
        )
    say(f"{name}: the same episodes in another order and at once, and none failed.")


def _config(name: str, overrides: list[str]) -> EnvironmentConfig:
    """The environment's config.

    Raises:
        RecipeError: there is none of this name, or an option is wrong.
    """
    from pydantic import TypeAdapter, ValidationError

    from posttrain.environments.kinds import KIND
    from posttrain.errors import RecipeError
    from posttrain.recipe.faults import sentence
    from posttrain.recipe.source import YamlSource

    source = YamlSource(f"env check {name}", {"name": name}, {})
    for override in ["max_turns=8", *overrides]:
        source.override(override)
    try:
        config: EnvironmentConfig = TypeAdapter(KIND.field).validate_python(source.values)
    except ValidationError as error:
        raise RecipeError("\n".join(sentence(source, one, whole="environment") for one in error.errors())) from None
    return config
