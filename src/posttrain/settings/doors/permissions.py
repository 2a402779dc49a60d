"""What a recipe may do that not every recipe may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


class Allowed(TypedDict):
    """Permissions by the names that they have as arguments of `run` and `plan`."""

    allow_remote_engine: bool
    allow_code: bool
    allow_remote_environment: bool
    allow_unjailed_code: bool


@dataclass(frozen=True, slots=True)
class Permissions:
    """Who starts a run gives them; a recipe cannot.

    remote_engine: a rollout server on another machine may be used; whoever reaches it can control it. code: functions and
    classes that the recipe names by path may run. remote_environment: an environment on another machine may play; it reads
    all that the policy writes, and what it says and pays is trained on. unjailed: programs that the policy writes may run
    with limits alone.
    """

    remote_engine: bool = False
    code: bool = False
    remote_environment: bool = False
    unjailed: bool = False

    @property
    def as_options(self) -> Allowed:
        """The arguments of `run` that give them."""
        return {
            "allow_remote_engine": self.remote_engine,
            "allow_code": self.code,
            "allow_remote_environment": self.remote_environment,
            "allow_unjailed_code": self.unjailed,
        }
