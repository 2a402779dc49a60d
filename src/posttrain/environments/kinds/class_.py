"""An environment class of yours, in processes of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.environments.base import Environment
from posttrain.environments.isolated.own import Hosts, of_class
from posttrain.environments.options import EnvironmentConfig
from posttrain.settings.doors.door import DoorToProcess


class ClassEnvironment(DoorToProcess, EnvironmentConfig):
    """A class of yours with reset(columns, seed), step(turn) and close(), in processes of its own; needs --allow-code."""

    says_right: ClassVar[bool] = True
    makes_tasks: ClassVar[bool] = True
    relabels: ClassVar[bool] = True

    name: Literal["class"] = "class"
    deadline: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """Seconds for the beginning, and for each turn, in which its process computes or sleeps, after which it is ended; waiting
    for a busy processor, or for other episodes in the same process, is not counted."""

    def build(self) -> Callable[[], Environment]:
        """With its first process started."""
        processes = min(self.concurrency, os.cpu_count() or 1)
        return Hosts(of_class(self.path, self.options), processes=processes, deadline=self.deadline)
