"""Whether an environment is a function of its rows: scripted episodes, played in two orders and at once, and compared."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from string import digits
from typing import Any, TypeVar

from posttrain.environments.base import Call, Environment, Start, Step, Turn
from posttrain.environments.calls import FORMATS
from posttrain.environments.options import EnvironmentConfig

EPISODES = 8
"""Of each policy."""
ODD = ("", " ", "\0", "####", "<|im_end|>", "{0}", "²", "#" * 1_000, "9" * 5_000, "(" * 1_000, "é\n" * 2_000)
"""What the hostile policy says."""

T = TypeVar("T")
Policy = Callable[[Random, Start, Sequence[Step]], Turn]


@dataclass(frozen=True, slots=True)
class Played:
    """An episode: a line for the beginning and for each turn, in JSON; and how it ended."""

    lines: Sequence[str]
    paid: float = 0.0
    done: bool = False
    right: bool = False
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """The episodes of one policy; and what is wrong with them, in sentences."""

    policy: str
    episodes: Sequence[Played]
    faults: Sequence[str]


def tried(config: EnvironmentConfig) -> list[Trial]:
    """Plays EPISODES of each policy in order, then backwards, then all at once, turn by turn.

    Raises:
        SetupError: the environment does not start.
    """
    make = config.build()

    def one(policy: str, number: int) -> Coroutine[Any, Any, Played]:
        return _episode(config, make, POLICIES[policy], Random(f"{policy}/{number}"), _row(config, number))

    async def in_turn(policy: str, numbers: Sequence[int]) -> list[Played]:
        return [await one(policy, number) for number in numbers]

    async def at_once(policy: str) -> list[Played]:
        return list(await asyncio.gather(*(one(policy, number) for number in range(EPISODES))))

    trials = list[Trial]()
    for policy in POLICIES:
        first = asyncio.run(in_turn(policy, range(EPISODES)))
        others = {
            "in another order": asyncio.run(in_turn(policy, range(EPISODES)[::-1]))[::-1],
            "at once": asyncio.run(at_once(policy)),
        }
        faults = [f"episode {number}: {one.fault}" for number, one in enumerate(first) if one.fault is not None]
        for how, episodes in others.items():
            faults += [f"episode {number}: played {how}, {said}" for number, said in _differences(first, episodes)]
        trials.append(Trial(policy, first, faults))
    return trials


def _row(config: EnvironmentConfig, number: int) -> Mapping[str, Any]:
    return {"split": "train", "seed": 0, "number": number} if config.makes_tasks else {"prompt": f"Say {number}."}


async def _episode(
    config: EnvironmentConfig, make: Callable[[], Environment], policy: Policy, draw: Random, columns: Mapping[str, Any]
) -> Played:
    lines, steps, fault = list[str](), list[Step](), None
    try:
        environment = make()
        try:
            start = await _in_time(config, environment.reset(columns, 0))
            lines.append(_line(start))
            while len(steps) < config.max_turns and not (steps and steps[-1].done):
                await asyncio.sleep(0)
                steps.append(await _in_time(config, environment.step(policy(draw, start, steps))))
                lines.append(_line(steps[-1]))
        finally:
            await environment.close()
    except TimeoutError:
        fault = f"turn {len(lines)}: it takes longer than its deadline, {config.deadline:g} seconds"
    except Exception as error:  # an environment may fail in any way
        fault = f"turn {len(lines)}: {type(error).__name__}: {error}"
    last = steps[-1] if steps else Step()
    paid = sum(step.reward or 0.0 for step in steps)
    return Played(lines, paid, last.done, bool(last.info.get("correct")), fault)


async def _in_time(config: EnvironmentConfig, answer: Awaitable[T]) -> T:
    """An answer; also one that leaves others no time is late.

    Raises:
        TimeoutError: it came after the deadline.
    """
    asked = time.monotonic()
    async with asyncio.timeout(config.deadline):
        given = await answer
    if time.monotonic() - asked > config.deadline:
        raise TimeoutError
    return given


def _line(said: Start | Step) -> str:
    """What was said, byte for byte.

    Raises:
        TypeError, ValueError: it is no plain data, has a number that is not finite, or says nothing though it is not over.
    """
    if any(not isinstance(message.get(key), str) for message in said.messages for key in ("role", "content")):
        raise ValueError("a message has no role or no content")
    if not said.messages and not (isinstance(said, Step) and said.done):
        raise ValueError("it says nothing, and is not done")
    return json.dumps(asdict(said), sort_keys=True, allow_nan=False)


def _differences(first: Sequence[Played], second: Sequence[Played]) -> list[tuple[int, str]]:
    found = list[tuple[int, str]]()
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        if one.lines != other.lines:
            pairs = zip(one.lines, other.lines, strict=False)
            place = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one.lines), len(other.lines)))
            found.append((number, f"it differs from {'the beginning' if place == 0 else f'turn {place}'} on"))
    return found


def _random(draw: Random, start: Start, steps: Sequence[Step]) -> Turn:
    """Says digits, and words that it was told first or last; and calls the tools that there are with such words."""
    told = (*start.messages, *(steps[-1].messages if steps else ()))
    words = re.findall(r"\w+", " ".join(message["content"] for message in told)) or ["?"]
    text = " ".join(draw.choices((*digits, *words), k=draw.choice((1, 1, 2))))
    if not start.tools or draw.random() < 0.3:
        return Turn(text)
    tool = draw.choice(start.tools)["function"]
    arguments = {key: _value(draw, schema, text) for key, schema in tool["parameters"]["properties"].items()}
    return Turn("", calls=[Call(tool["name"], arguments)])


def _value(draw: Random, schema: Mapping[str, Any], text: str) -> Any:
    """Of the type that a schema asks for, where it is a plain one; else a text."""
    kinds: Mapping[str, Any] = {"integer": draw.randint(-3, 30), "number": draw.random(), "boolean": draw.random() < 0.5}
    return kinds.get(str(schema.get("type")), text)


def _hostile(draw: Random, start: Start, steps: Sequence[Step]) -> Turn:
    """Says what no environment expects, and calls what there is not."""
    calls = [Call("", fault="it is cut off"), Call(draw.choice(ODD) or "?", {"0": draw.choice(ODD)}), Call("?" * 1_000)]
    for tool in start.tools:
        calls.append(Call(tool["function"]["name"], {draw.choice(ODD): draw.choice((None, 1e300, [[[]]], *ODD))}))
        calls.append(
            Call(tool["function"]["name"], dict.fromkeys(tool["function"]["parameters"]["properties"], draw.choice(ODD)))
        )
    written = "".join(draw.choice(ODD) for _ in range(draw.randint(1, 3)))
    read = FORMATS[draw.choice(sorted(FORMATS))](written)
    return Turn(written, calls=[*read, *draw.sample(calls, draw.randint(0, 3))])


POLICIES: Mapping[str, Policy] = {"random": _random, "hostile": _hostile}
"""What plays: neither learns, and neither needs to know the environment."""
