"""What a recipe may do that not every recipe may."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permissions:
    """Who starts a run gives them; a recipe cannot.

    remote_engine: a rollout server on another machine may be used; whoever reaches it can control it. code: functions and
    classes that the recipe names by path may run.
    """

    remote_engine: bool = False
    code: bool = False
