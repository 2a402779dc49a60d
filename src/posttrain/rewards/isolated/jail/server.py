"""The process that starts programs behind bars, one request at a time: its level and bounds are the arguments."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from posttrain.rewards.isolated.jail.kernel import Bounds
from posttrain.rewards.isolated.jail.running import NotStarted, check, run, swept
from posttrain.rewards.isolated.jail.start import Bars
from posttrain.rewards.isolated.serve import serve


def jail(level: Any, bounds: Bounds) -> Callable[[dict[str, Any]], Any]:
    """{"run": a program, "given": its input} → what `Ran` has. {"check": a program, "tests": …} → see `check`. Either way
    {"error": …} where the bars could not be put up.
    """
    bars = Bars(level, bounds)
    if sys.platform == "linux":
        bars.kernel.die_with_parent()
        bars.kernel.adopt()

    def answer(request: dict[str, Any]) -> Any:
        try:
            if "run" in request:
                return asdict(run(bars, request["run"], request["given"]))
            return check(bars, request["check"], request["tests"])
        except (NotStarted, OSError) as error:
            return {"error": str(error)}
        finally:
            swept()

    return answer


if __name__ == "__main__":
    serve(lambda: jail(sys.argv[1], Bounds(**json.loads(sys.argv[2]))))
