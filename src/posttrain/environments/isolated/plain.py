"""Starts, turns and steps as plain data, as they go from one process to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from posttrain.environments.base import Call, Start, Step, Turn
from posttrain.rewards.values import Refused, number


def of_turn(turn: Turn) -> dict[str, Any]:
    """A turn as plain data."""
    return asdict(turn)


def turn_of(given: Mapping[str, Any]) -> Turn:
    """A turn again."""
    return Turn(given["text"], given["thinking"], tuple(Call(**call) for call in given["calls"]), given["finish"])


def of_start(given: Any) -> dict[str, Any]:
    """What `reset` gave as plain data.

    Raises:
        Refused: it is no Start.
    """
    if not isinstance(given, Start):
        raise Refused(f"reset gave {type(given).__name__}, not a Start")
    return {"messages": [dict(one) for one in given.messages], "tools": [dict(one) for one in given.tools]}


def of_step(given: Any) -> dict[str, Any]:
    """What `step` gave as plain data.

    Raises:
        Refused: it is no Step.
    """
    if not isinstance(given, Step):
        raise Refused(f"step gave {type(given).__name__}, not a Step")
    reward = None if given.reward is None else number(given.reward)
    said = [dict(one) for one in given.messages]
    return {"messages": said, "reward": reward, "done": bool(given.done), "info": dict(given.info)}
