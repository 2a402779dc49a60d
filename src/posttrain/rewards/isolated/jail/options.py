"""What whoever runs programs of the policy can be told in a recipe. No torch here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from posttrain.rewards.isolated.jail.jail import Jail
from posttrain.rewards.isolated.jail.kernel import Bounds
from posttrain.rewards.isolated.jail.levels import Asked
from posttrain.settings.base import Config, Count


class Jailed(Config):
    """Of what runs programs that the policy wrote."""

    jail: Asked = "strongest"
    """Behind which bars: full, bubblewrap or landlock, the strongest that the machine has if not set; rlimits are none, and
    need --allow-unjailed-code."""
    seconds: Count = 2
    """Of the processor that a program has; ten times as many by the clock."""
    memory: Annotated[int, Field(ge=64, le=2**20)] = 512
    """MiB of address space that it has."""

    def jailed(self) -> Jail:
        """The jail, started.

        Raises:
            SetupError: this machine has no such level.
        """
        return Jail(self.jail, Bounds(seconds=self.seconds, memory=self.memory))
