"""`posttrain` with a run in which one rank fails while the other waits for it; started by test_launch.py."""

from __future__ import annotations

import os
from typing import Any

from posttrain import cli, runner
from posttrain.distributed import ranks
from posttrain.errors import DataError


def run(*_: Any, **__: Any) -> None:
    ranks.join(60.0, cpu=True)
    if ranks.rank() == int(os.environ["FAILING"]):
        raise DataError("row 3 is torn")
    ranks.met("the data")


if __name__ == "__main__":
    setattr(runner, "run", run)  # noqa: B010
    cli.main()
