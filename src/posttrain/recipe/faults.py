"""What is wrong with a file, with its line."""

from __future__ import annotations

from typing import Any

from posttrain.recipe.source import YamlSource
from posttrain.settings.faults import fault


def sentence(source: YamlSource, error: Any, *, whole: str = "recipe") -> str:
    """One of pydantic's errors: the file and its line, the key, or what the whole is, and what to do."""
    found = fault(error)
    where = source.path_of(found.where)
    return f"{source.place(where)}: {'.'.join(where) or whole}: {found.message}"
