"""What is wrong with a file, with its line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.recipe.source import YamlSource
from posttrain.settings.base import location
from posttrain.settings.faults import fault


def sentence(source: YamlSource, error: Any, *, whole: str = "recipe") -> str:
    """One of pydantic's errors: the file and its line, the key, or what the whole is, and what to do."""
    found = fault(error)
    where = source.path_of(found.where)
    return f"{source.place(where)}: {'.'.join(where) or whole}: {found.message}"


def sentences(source: YamlSource, errors: Sequence[Any]) -> list[str]:
    """Of each fault of a recipe one, where the file has it: what the top level repeats of its last stage, and every round of
    the stages that are written once, is told once.
    """
    in_stages = {location(error)[2:] for error in errors if error["loc"][:1] == ("stages",)}
    shown = [error for error in errors if location(error) not in in_stages]
    written = source.values.get("stages") or []
    if source.values.get("rounds") is not None and not any("round" in stage for stage in written if isinstance(stage, dict)):
        shown = [{**error, "loc": _once(error["loc"], len(written))} for error in shown]
    return list(dict.fromkeys(sentence(source, error) for error in shown))


def _once(place: tuple[Any, ...], written: int) -> tuple[Any, ...]:
    if place[:1] != ("stages",) or len(place) < 2:
        return place
    return (place[0], place[1] % written, *place[2:]) if written else place[2:]
