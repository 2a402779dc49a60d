"""Whether an environment is a function of its rows: scripted episodes, played in two orders and at once, and compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from string import digits
from typing import Any

from posttrain.environments.base import Call, Environment, Start, Step, Turn
from posttrain.environments.options import EnvironmentConfig
from posttrain.environments.sessions import Failure, Sessions
from posttrain.rewards.reading.calls import FORMATS

EPISODES = 8
"""Of each policy."""
ODD = ("", " ", "\0", "####", "<|im_end|>", "{0}", "²", "#" * 1_000, "9" * 5_000, "(" * 1_000, "é\n" * 2_000)
"""What the hostile policy says."""

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
    """Plays EPISODES of each policy in order, then backwards, then all at once, turn by turn, or as many as it has room for.

    Raises:
        SetupError: the environment does not start.
    """
    trials, numbers = list[Trial](), range(EPISODES)
    with Sessions.of(config) as sessions:
        for policy in POLICIES:
            first = [_played(config, sessions, policy, [number])[0] for number in numbers]
            backwards = [_played(config, sessions, policy, [number])[0] for number in reversed(numbers)]
            most = config.at_once or EPISODES
            parts = [numbers[start : start + most] for start in range(0, EPISODES, most)]
            at_once = [one for part in parts for one in _played(config, sessions, policy, part)]
            faults = [f"episode {number}: {one.fault}" for number, one in enumerate(first) if one.fault is not None]
            for how, episodes in (("in another order", backwards[::-1]), ("at once", at_once)):
                faults += [f"episode {number}: played {how}, {said}" for number, said in _differences(first, episodes)]
            trials.append(Trial(policy, first, faults))
    return trials


@dataclass(slots=True)
class _Live:
    environment: Environment | None
    draw: Random
    start: Start
    steps: list[Step]
    fault: str | None = None

    @property
    def over(self) -> bool:
        """Whether it has failed, or said so."""
        return self.fault is not None or bool(self.steps and self.steps[-1].done)

    def told(self) -> Played:
        """What others said in it."""
        lines = [json.dumps(asdict(said), sort_keys=True) for said in (self.start, *self.steps)]
        right = bool(self.steps and self.steps[-1].info.get("correct"))
        paid = sum(step.reward or 0.0 for step in self.steps)
        return Played(lines, paid, bool(self.steps and self.steps[-1].done), right, self.fault)


def _played(config: EnvironmentConfig, sessions: Sessions, policy: str, numbers: Sequence[int]) -> list[Played]:
    """Episodes of these rows, a turn of each at a time."""
    begun = sessions.reset([(_row(config, number), 0) for number in numbers])
    lives = list[_Live]()
    for number, (environment, start) in zip(numbers, begun, strict=True):
        draw = Random(f"{policy}/{number}")
        if isinstance(start, Failure):
            lives.append(_Live(environment, draw, Start(()), [], f"at its beginning: {start.reason}"))
        else:
            lives.append(_Live(environment, draw, start, []))
    for number in range(1, config.max_turns + 1):
        playing = [(one, one.environment) for one in lives if one.environment is not None and not one.over]
        turns = [POLICIES[policy](one.draw, one.start, one.steps) for one, _ in playing]
        steps = sessions.step([(environment, turn) for (_, environment), turn in zip(playing, turns, strict=True)])
        for (one, _), step in zip(playing, steps, strict=True):
            if isinstance(step, Failure):
                one.fault = f"turn {number}: {step.reason}"
            else:
                one.steps.append(step)
    sessions.end([one.environment for one in lives if one.environment is not None])
    return [one.told() for one in lives]


def _row(config: EnvironmentConfig, number: int) -> Mapping[str, Any]:
    return {"split": "train", "seed": 0, "number": number} if config.makes_tasks else {"prompt": f"Say {number}."}


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
