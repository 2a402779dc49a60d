"""An environment of the package verifiers, of its first kind (v0), in processes that have the package."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.environments.base import Environment
from posttrain.environments.isolated.own import Hosts
from posttrain.environments.options import EnvironmentConfig
from posttrain.errors import SetupError

BEGIN = (
    "import sys; root = sys.argv[1]; sys.path.insert(0, root); import posttrain; sys.path.remove(root); "
    "from posttrain.environments.isolated.verifiers_child import main; main(sys.argv[2])"
)
"""What another interpreter runs: of the folder that this package lies in, it is given this package alone."""


class VerifiersConfig(EnvironmentConfig):
    """An environment of the package verifiers, v0: a SingleTurnEnv, a MultiTurnEnv or a ToolEnv; needs --allow-code.

    Turns are sampled, calls are read and time is kept as with any other environment; theirs are the tasks, what is said after
    a turn, when it is over, and the rubric.
    """

    says_right: ClassVar[bool] = True
    makes_tasks: ClassVar[bool] = True

    name: Literal["verifiers"] = "verifiers"
    id: Annotated[str, Field(pattern=r"^[A-Za-z_][\w./-]*$")]
    """Of the environment, as verifiers' load_environment takes it: an installed module that has a function of that name."""
    args: dict[str, Any] = {}
    """Keyword arguments of it."""
    python: str | None = None
    """The interpreter that has verifiers and the environment, where they are not to be installed beside this package; its
    requirements are strict."""
    deadline: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """Seconds for the beginning, and for each turn, in which its process computes or sleeps, after which it is ended; waiting
    for a busy processor, or for other episodes in the same process, is not counted."""

    @property
    def label(self) -> str:
        """What it is called."""
        return self.id

    @property
    def package(self) -> tuple[str, str] | None:
        """See `EnvironmentConfig`."""
        return ("verifiers", "'posttrain[verifiers]'") if self.python is None else None

    @property
    def foreign_code(self) -> str:
        """See `EnvironmentConfig`."""
        return f"{self.id} (of verifiers)" if self.python is None else f"{self.id} (of verifiers, by {self.python})"

    def build(self) -> Callable[[], Environment]:
        """With its first process started."""
        python = sys.executable if self.python is None else shutil.which(self.python)
        if python is None:
            raise SetupError(f"environment.python: {self.python} is no program that can be started.")
        told = json.dumps({"name": self.id, "arguments": self.args, "max_turns": self.max_turns})
        folder = str(Path(__file__).parents[3])
        processes = min(self.concurrency, os.cpu_count() or 1)
        return Hosts([python, "-P", "-c", BEGIN, folder, told], processes=processes, deadline=self.deadline)
