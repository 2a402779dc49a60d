"""Episodes of scripted policies, without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from posttrain.environments.base import Message, Start, Step, Turn
from posttrain.environments.options import EnvironmentConfig

Policy = Callable[[Start, Sequence[tuple[Turn, Step]]], Turn]
SPLITS = ("train", "validation", "held_out")


def row(number: int, split: str = "train", seed: int = 0) -> dict[str, Any]:
    """A row that asks for a task."""
    return {"split": split, "seed": seed, "number": number}


def play(config: EnvironmentConfig, policy: Policy, columns: Mapping[str, Any]) -> list[Step]:
    """What came of each turn of an episode, until it is over or has max_turns."""

    async def episode() -> list[Step]:
        environment = config.build()()
        start, played = await environment.reset(columns, 0), list[tuple[Turn, Step]]()
        while len(played) < config.max_turns and not (played and played[-1][1].done):
            turn = policy(start, played)
            played.append((turn, await environment.step(turn)))
        await environment.close()
        return [step for _, step in played]

    return asyncio.run(episode())


def paid(steps: Sequence[Step]) -> float:
    """The sum of an episode's rewards."""
    return sum(step.reward or 0.0 for step in steps)


def right(config: EnvironmentConfig, policy: Policy, episodes: int) -> float:
    """The share of episodes that end right."""
    return sum(play(config, policy, row(number))[-1].info["correct"] for number in range(episodes)) / episodes


def last(start: Start, played: Sequence[tuple[Turn, Step]]) -> str:
    """What the environment said last."""
    messages: Sequence[Message] = played[-1][1].messages if played else start.messages
    return messages[-1]["content"]


def chance(texts: Sequence[str], seed: int = 0) -> Policy:
    """A policy that says any of the texts."""
    draw = Random(seed)
    return lambda start, played: Turn(draw.choice(texts))
