"""Programs that a model wrote, run by whoever needs to know what comes of them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.rewards.isolated.child import ChildDied
from posttrain.rewards.isolated.jail.kernel import Bounds
from posttrain.rewards.isolated.jail.levels import Asked, bounded, level_of
from posttrain.rewards.isolated.jail.running import GRACE, WALL, Ran
from posttrain.rewards.isolated.pool import Pool

_MORE = 30.0  # seconds that starting and ending may take, on a busy machine


class Jail:
    """Runs programs behind bars, from any thread, each in processes of its own.

    Args:
        asked: the level.
        bounds: of each program.

    Raises:
        SetupError: this machine has no such level.
    """

    def __init__(self, asked: Asked = "strongest", bounds: Bounds | None = None) -> None:
        bounds = bounds or Bounds()
        self.level, self._longest = level_of(asked), 2 * WALL * bounds.seconds + GRACE + _MORE
        command = [sys.executable, "-P", "-m", "posttrain.rewards.isolated.jail.server", self.level, bounded(bounds)]
        keep = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
        environment = {name: value for name, value in os.environ.items() if name in keep}
        self._at_once = threading.BoundedSemaphore(os.cpu_count() or 1)  # so that none waits long for a processor
        self._pool = Pool(command, what="The jail does not start", environment=environment)

    def run(self, program: str, given: str = "") -> Ran:
        """Runs a program, with this as its input.

        Raises:
            TimeoutError, ChildDied: nobody knows what came of it.
        """
        return Ran(**self._asked({"run": program, "given": given}))

    def check(self, program: str, tests: str | Sequence[str]) -> Mapping[str, Any]:
        """What tests say of a program: see `guest.check`.

        Raises:
            TimeoutError, ChildDied: nobody knows.
        """
        return self._asked({"check": program, "tests": tests})

    def close(self) -> None:
        """Ends its processes."""
        self._pool.close()

    def _asked(self, request: dict[str, Any]) -> Any:
        with self._at_once:
            reply = self._pool.ask(request, self._longest)
        if "error" in reply:
            raise ChildDied(f"the jail: {reply['error']}")
        return reply
