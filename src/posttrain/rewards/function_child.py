"""The child process that calls a reward function of the user's: its dotted path is the argument."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

from posttrain.rewards.serve import serve


def _make() -> Callable[[Any], Any]:
    """Arguments by name → {"scores": [a number, or null for none]} or {"error": …}."""
    module, _, name = sys.argv[1].rpartition(".")
    function = getattr(importlib.import_module(module), name)
    taken = inspect.signature(function).parameters
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values())

    def answer(arguments: dict[str, Any]) -> Any:
        try:
            scores = function(**{key: value for key, value in arguments.items() if takes_all or key in taken})
            return {"scores": [None if score is None else float(score) for score in scores]}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}

    return answer


if __name__ == "__main__":
    sys.path.insert(0, "")
    serve(_make)
