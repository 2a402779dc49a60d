"""`posttrain list`: what there is, of this package, of installed ones, and in the folder recipes/ here."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from posttrain.cli.screen import out
from posttrain.errors import RecipeError

if TYPE_CHECKING:
    from posttrain.settings.doors.kinds import Kind


def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="algorithms|rewards|environments|schedules|optimizers|transforms|adapters|merges|updates|trainable|recipes",
        ),
    ],
) -> None:
    """Show what there is."""
    listings = {
        "algorithms": _algorithms,
        "rewards": _rewards,
        "environments": _environments,
        "schedules": _schedules,
        "optimizers": _optimizers,
        "transforms": _transforms,
        "adapters": _adapters,
        "merges": _merges,
        "updates": _updates,
        "trainable": _trainable,
        "recipes": _recipes,
    }
    if what not in listings:
        raise RecipeError(f"list {what}: one of {', '.join(listings)} is expected.")
    out.print(listings[what](), soft_wrap=what == "algorithms")


def _algorithms() -> Text:
    from posttrain.algorithms import KIND, example_values

    lines = ["grad = mask · 1/pi_ref · A · grad pi_theta, averaged; one line for each term", "", *map(repr, example_values())]
    lines += [f"{name}: {summary}" for name, summary in _brought(KIND)]
    return Text("\n".join(lines))


def _rewards() -> Table:
    from posttrain.rewards.kinds import KIND

    table = Table(Column("reward", no_wrap=True), "what", "reads", "verdict")
    for name, config in KIND.members.items():
        columns = ", ".join(config.columns) or "no label"
        table.add_row(name, _summary(config), columns, "can be" if config.says_right else "")
    for name, summary in _brought(KIND):
        table.add_row(name, Text(summary))
    return table


def _environments() -> Table:
    from posttrain.environments.kinds import KIND

    table = Table(Column("environment", no_wrap=True), "what", "verdict", "makes tasks")
    for name, config in KIND.members.items():
        said = "yes" if config.says_right else ""
        table.add_row(name, Text(_summary(config)), said, "yes" if config.makes_tasks else "")
    for name, summary in _brought(KIND):
        table.add_row(name, Text(summary))
    return table


def _schedules() -> Table:
    from posttrain.train.schedules import KIND

    table = Table(Column("schedule", no_wrap=True), "what", "with training.budget")
    for name, config in KIND.members.items():
        table.add_row(name, Text(_summary(config)), "yes" if config.by_progress else "")
    for name, summary in _brought(KIND):
        table.add_row(name, Text(summary))
    return table


def _optimizers() -> Table:
    from posttrain.train.optimizers import KIND

    return _all_of(KIND)


def _updates() -> Table:
    from posttrain.train.updates import UPDATES

    table = Table(Column("update", no_wrap=True), "what")
    for config in UPDATES:
        table.add_row(config.model_fields["name"].default, Text(_summary(config)))
    return table


def _trainable() -> Table:
    from posttrain.train.updates.trainable import TRAINABLE

    table = Table(Column("rule", no_wrap=True), "what")
    for config in TRAINABLE:
        table.add_row(config.model_fields["rule"].default, Text(_summary(config)))
    return table


def _transforms() -> Table:
    from posttrain.data.transforms import KIND

    return _all_of(KIND)


def _adapters() -> Table:
    from posttrain.settings.adapters.fields import fields_of
    from posttrain.settings.adapters.kinds import KINDS, REFUSED, REFUSED_OPTIONS

    table = Table(Column("adapter", no_wrap=True), "fields of peft")
    for kind in KINDS:
        others = {option for one in KINDS if one.module == kind.module for option in one.fixed}
        own = sorted(fields_of(kind) - REFUSED_OPTIONS.keys() - others)
        table.add_row(kind.name, Text(f"peft's {kind.config}: {', '.join(own)}"))
    table.add_section()
    for name, reason in REFUSED.items():
        table.add_row(name, Text(f"not offered: {reason}"))
    return table


def _merges() -> Table:
    from posttrain.model.merging.kinds import BY_NAME

    table = Table(Column("method", no_wrap=True), "what")
    for name, config in BY_NAME.items():
        table.add_row(name, Text(_summary(config)))
    return table


def _all_of(kind: Kind[Any]) -> Table:
    table = Table(Column(kind.what, no_wrap=True), "what")
    for name, summary in (*((name, _summary(config)) for name, config in kind.members.items()), *_brought(kind)):
        table.add_row(name, Text(summary))
    return table


def _recipes() -> Table:
    from posttrain.recipe.by_name import group_of, is_shipped, known_recipes

    table = Table(Column("recipe", no_wrap=True), Column("of", no_wrap=True), "what")
    groups = itertools.groupby(known_recipes().items(), key=lambda one: group_of(one[1]))
    for group, recipes in groups:
        for name, path in recipes:
            first, _, _ = path.read_text(encoding="utf-8", errors="replace").partition("\n")
            owner = "posttrain" if is_shipped(path) else "recipes"
            table.add_row(Text(name), Text(f"{owner}/{group}".rstrip("/")), Text(first.lstrip("# ")))
        table.add_section()
    return table


def _brought(kind: Kind[Any]) -> list[tuple[str, str]]:
    """What installed packages bring, the broken ones with the reason."""
    return [
        (one.name, f"of {one.package}: {_summary(one.member) if one.member is not None else f'not usable: {one.fault}'}")
        for one in kind.installed()
    ]


def _summary(config: type[Any]) -> str:
    return (config.__doc__ or "").split("\n", 1)[0]
