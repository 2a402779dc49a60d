"""An environment class of yours, in processes of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from posttrain.environments.base import Environment
from posttrain.environments.isolated.own import Hosts
from posttrain.environments.options import EnvironmentConfig
from posttrain.settings.doors.door import Door


class ClassEnvironment(Door, EnvironmentConfig):
    """A class of yours with reset(columns, seed), step(turn) and close(), in processes of its own; needs --allow-code."""

    says_right: ClassVar[bool] = True
    makes_tasks: ClassVar[bool] = True

    name: Literal["class"] = "class"
    deadline: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """Seconds for the beginning, and for each turn, in which its process computes or sleeps, after which it is ended; waiting
    for a busy processor, or for other episodes in the same process, is not counted."""

    @field_validator("options")
    @classmethod
    def _are_plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"they go to another process as JSON: {error}") from None
        return options

    def build(self) -> Callable[[], Environment]:
        """With its first process started."""
        processes = min(self.concurrency, os.cpu_count() or 1)
        return Hosts(self.path, self.options, processes=processes, deadline=self.deadline)
