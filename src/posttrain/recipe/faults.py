"""What is wrong with a recipe, in sentences."""

from __future__ import annotations

import difflib
import re
from typing import Any

from posttrain.recipe.source import YamlSource
from posttrain.settings.base import location


def sentence(source: YamlSource, error: Any) -> str:
    """One of pydantic's errors: the file and its line, the key, and what to do."""
    where = source.path_of(location(error))
    message = re.sub(r"^Value error, ", "", error["msg"])
    if error["type"] == "missing":
        message = "is required"
    elif error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        message = f"keys are expected here, not {error['input']!r:.60}"
    elif error["type"] == "source" and isinstance(error["input"], dict):
        near = [key for key in error["input"] if difflib.get_close_matches(key, ("path", "hub", "task"), n=1)]
        message += f"; did you mean {difflib.get_close_matches(near[0], ('path', 'hub', 'task'))[0]}?" if near else ""
    elif error["type"] == "literal_error" and error["loc"][-1] == "[key]":
        known = re.findall(r"'([^']+)'", error["ctx"]["expected"])
        near = difflib.get_close_matches(str(error["input"]), known, n=1)
        message = f"unknown key; did you mean {near[0]}?" if near else f"unknown key; there are {', '.join(known)}"
    elif error["type"] == "union_tag_not_found":
        where, message = (*where, "name"), "is required"
    elif error["type"] == "union_tag_invalid":
        known = re.findall(r"'([^']+)'", error["ctx"]["expected_tags"])
        near = difflib.get_close_matches(error["ctx"]["tag"], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        where, message = (*where, "name"), f"{error['ctx']['tag']} is unknown; {hint}"
    elif error["type"] not in ("unknown_key", "value_error", "source"):
        message = f"{message[0].lower()}{message[1:]} (it is {error['input']!r:.80})"
    elif error["type"] == "value_error" and not where:
        match = re.match(r"([a-z0-9_]+(?:\.[a-z0-9_]+)*): (.*)", message, re.DOTALL)
        where, message = (tuple(match[1].split(".")), match[2]) if match else (where, message)
    return f"{source.place(where)}: {'.'.join(where) or 'recipe'}: {message}"
