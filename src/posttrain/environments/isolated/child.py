"""The child process that runs environments of the user's: its path and options are the arguments. It has many at a time."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Callable
from typing import Any

from posttrain.environments.isolated.plain import of_start, of_step, turn_of
from posttrain.rewards.isolated.serve import serve
from posttrain.rewards.values import Refused, as_text
from posttrain.settings.doors import code

METHODS = ("reset", "step", "close")


def environments(path: str, options: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """What answers the parent, of a class: see `answering`.

    Raises:
        Refused: it cannot be loaded, or is no environment.
    """
    try:
        kind = code.load(path)
    except ValueError as error:
        raise Refused(str(error)) from error
    for name in METHODS:
        if not callable(getattr(kind, name, None)):
            raise Refused(f"{path} has no method {name}: an environment has reset(columns, seed), step(turn) and close()")
    try:
        inspect.signature(kind).bind(**options)
    except TypeError as error:
        raise Refused(f"{path}: options: {error}") from None
    return answering(lambda: kind(**options), asyncio.new_event_loop())


def answering(make: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> Callable[[dict[str, Any]], Any]:
    """{"of": a number, "reset": [columns, seed]} → {"start": …}; {"of": …, "step": turn} → {"step": …}; {"of": …,
    "relabel": [columns, infos]} → {"columns": …}; {"of": …, "close": true} → {}; or {"error": …}, and then the environment of
    that number is gone.
    """
    living = dict[int, Any]()

    def came(given: Any) -> Any:
        return loop.run_until_complete(given) if inspect.isawaitable(given) else given

    def answer(request: dict[str, Any]) -> Any:
        number = request["of"]
        try:
            if "reset" in request:
                living[number] = one = make()
                return {"start": _plain(of_start(came(one.reset(*request["reset"]))))}
            if "relabel" in request:
                one = make()
                if not callable(getattr(one, "relabel", None)):
                    raise Refused("it has no method relabel(columns, infos)")
                return _plain({"columns": came(one.relabel(*request["relabel"]))})
            if "step" in request:
                return {"step": _plain(of_step(came(living[number].step(turn_of(request["step"])))))}
            came(living.pop(number).close())
            return {}
        except Exception as error:
            living.pop(number, None)
            return {"error": as_text(error)}

    return answer


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    """What can be sent."""
    try:
        json.dumps(given)
    except (TypeError, ValueError) as error:
        raise Refused(f"gave what is no plain data: {error}") from None
    return given


if __name__ == "__main__":
    path, options = sys.argv[1:]
    serve(lambda: environments(path, json.loads(options)))
