"""The child process that runs a reward of the user's: its kind (function or class), path and options are the arguments."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.isolated.serve import serve
from posttrain.rewards.values import Refused, as_text, listed, number
from posttrain.settings.doors import code

Ask = Callable[[dict[str, Any]], Any]


def function(path: str, options: dict[str, Any]) -> Ask:
    """{"given": arguments by name, "withheld": columns by name, with the type that is no JSON}
    → {"scores": [a number, or null for none]} or {"error": …}.
    """
    found = load(path)
    try:
        taken = inspect.signature(found).parameters
    except TypeError as error:
        raise Refused(f"{path}: {error}") from error
    takes_all = any(one.kind is Parameter.VAR_KEYWORD for one in taken.values())
    if unknown := [name for name in options if name not in taken and not takes_all]:
        raise Refused(f"{path} takes no option {unknown[0]}; it takes {', '.join(taken)}")

    def answer(request: dict[str, Any]) -> Any:
        try:
            scores = listed(found(**_arguments(taken, **request), **options))
            return {"scores": [None if score is None else number(score) for score in scores]}
        except Exception as error:
            return {"error": as_text(error)}

    def _arguments(taken: Mapping[str, Parameter], given: dict[str, Any], withheld: dict[str, str]) -> dict[str, Any]:
        for column, kind in withheld.items():
            if takes_all or column in taken:
                raise Refused(f"cannot be given the column {column}: {kind} is no JSON; turn it into text in the data")
        given = {name: value for name, value in given.items() if name not in options}
        optional = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
        for name, one in taken.items():
            if name not in {**given, **options} and one.default is Parameter.empty and one.kind not in optional:
                raise Refused(f"needs the parameter {name}, which is no column; there are {', '.join(given)}")
        return {key: value for key, value in given.items() if takes_all or key in taken}

    return answer


def class_(path: str, options: dict[str, Any]) -> Ask:
    """{"columns": true} → the columns that it reads. {"group": …, "withheld": …} → {"judgements": [[score, right, answer,
    fault], …]} or {"error": …}.
    """
    kind = load(path)
    try:
        reward = kind(**options)
    except Exception as error:
        raise Refused(f"{path} {as_text(error)}") from error
    if not callable(getattr(reward, "judge", None)):
        raise Refused(f"{path} has no method judge(group), which gives a score for each completion")

    def answer(request: dict[str, Any]) -> Any:
        if "columns" in request:
            return [str(name) for name in getattr(reward, "columns", ())]
        columns = _Columns(request["group"].pop("columns"), request["withheld"])
        try:
            given = listed(reward.judge(Group(**request["group"], columns=columns)))
            judged = [one if isinstance(one, Judgement) else Judgement(one) for one in given]
            return {"judgements": [_plain(one) for one in judged]}
        except Exception as error:
            return {"error": as_text(error)}

    return answer


def load(path: str) -> Any:
    """The object.

    Raises:
        Refused: it cannot be had.
    """
    try:
        return code.load(path)
    except ValueError as error:
        raise Refused(str(error)) from error


class _Columns(dict[str, Any]):
    """Columns of which some could not be sent."""

    def __init__(self, columns: Mapping[str, Any], withheld: Mapping[str, str]) -> None:
        super().__init__(columns)
        self._withheld = withheld

    def __missing__(self, name: str) -> Any:
        if name in self._withheld:
            kind = self._withheld[name]
            raise Refused(f"cannot be given the column {name}: {kind} is no JSON; turn it into text in the data")
        raise KeyError(f"{name} is no column; there are {', '.join(self)}")


def _plain(one: Judgement) -> list[Any]:
    right = None if one.right is None else bool(one.right)
    answer = None if one.answer is None else str(one.answer)
    return [None if one.score is None else number(one.score), right, answer, one.fault and str(one.fault)]


if __name__ == "__main__":
    kind, path, options = sys.argv[1:]
    serve(lambda: {"function": function, "class": class_}[kind](path, json.loads(options)))
