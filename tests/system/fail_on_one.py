"""`posttrain` with a run in which one rank fails, or sleeps, while the other waits for it; started by test_launch.py."""

from __future__ import annotations

import os
import time
from typing import Any

from posttrain.cli import app as cli
from posttrain.distributed import ranks
from posttrain.distributed.launch import leave
from posttrain.errors import DataError
from posttrain.execution import runner


def run(*_: Any, **__: Any) -> None:
    ranks.join(float(os.environ.get("TIMEOUT", "60")), cpu=True)
    ranks.barrier("the recipe")
    if ranks.rank() == int(os.environ.get("FAILING", "-1")):
        raise DataError("row 3 is torn")
    if ranks.rank() == int(os.environ.get("SLEEPING", "-1")):
        time.sleep(60)
    ranks.barrier("the data")


if __name__ == "__main__":
    setattr(runner, "run", run)  # noqa: B010
    try:
        cli.main()
    except BaseException as error:
        leave(error)
