"""What is wrong with a file, with its line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.recipe.source import Keys, YamlSource
from posttrain.settings.base import location
from posttrain.settings.faults import fault


def sentence(source: YamlSource, error: Any, *, whole: str = "recipe") -> str:
    """One of pydantic's errors: the file and its line, the key, or what the whole is, and what to do."""
    found = fault(error)
    where = source.path_of(_as_written(source, found.where))
    return f"{source.place(where)}: {'.'.join(where) or whole}: {found.message}"


def sentences(source: YamlSource, errors: Sequence[Any]) -> list[str]:
    """Of each fault of a recipe one, where the file has it: what the top level repeats of its last stage, and every round of
    the stages that are written once, is told once.
    """
    in_stages = {location(error)[2:] for error in errors if error["loc"][:1] == ("stages",)}
    shown = [error for error in errors if location(error) not in in_stages]
    return list(dict.fromkeys(sentence(source, error) for error in shown))


def _as_written(source: YamlSource, place: Keys) -> Keys:
    """A place in a stage of some round as that in the stage that is written, or where none is at the top."""
    written: Any = source.values.get("stages") or []
    made_whole = any("round" in stage for stage in written if isinstance(stage, dict))
    if source.values.get("rounds") is None or made_whole or place[:1] != ("stages",) or not "".join(place[1:2]).isdigit():
        return place
    return (place[0], str(int(place[1]) % len(written)), *place[2:]) if written else place[2:]
