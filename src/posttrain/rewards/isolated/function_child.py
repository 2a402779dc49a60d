"""The child process that calls a reward function of the user's: its dotted path is the argument."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any

from posttrain.rewards.isolated.serve import serve
from posttrain.rewards.values import Refused, listed, number, told


def _make() -> Callable[[dict[str, Any]], Any]:
    """{"given": arguments by name, "withheld": columns by name, with the type that is no JSON}
    → {"scores": [a number, or null for none]} or {"error": …}.
    """
    module, _, name = sys.argv[1].rpartition(".")
    function = getattr(importlib.import_module(module), name)
    taken = inspect.signature(function).parameters

    def answer(request: dict[str, Any]) -> Any:
        try:
            scores = listed(function(**_arguments(taken, **request)))
            return {"scores": [None if score is None else number(score) for score in scores]}
        except Exception as error:
            return {"error": told(error)}

    return answer


def _arguments(taken: Mapping[str, Parameter], given: dict[str, Any], withheld: dict[str, str]) -> dict[str, Any]:
    takes_all = any(one.kind is Parameter.VAR_KEYWORD for one in taken.values())
    for column, kind in withheld.items():
        if takes_all or column in taken:
            raise Refused(f"cannot be given the column {column}: {kind} is no JSON; turn it into text in the data")
    optional = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
    for name, one in taken.items():
        if name not in given and one.default is Parameter.empty and one.kind not in optional:
            raise Refused(f"needs the parameter {name}, which is no column; there are {', '.join(given)}")
    return {key: value for key, value in given.items() if takes_all or key in taken}


if __name__ == "__main__":
    sys.path.append(os.getcwd())
    serve(_make)
