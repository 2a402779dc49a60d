"""The child process that has an environment of the package verifiers (v0), in whatever interpreter has that package.

It is told the environment's id, its arguments and the limit of turns. Its parent plays: samples turns, reads calls and keeps
time. Nothing but the standard library, verifiers and light modules of this package is imported.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from posttrain.environments.base import Call, Start, Step, Turn
from posttrain.environments.isolated.child import answering
from posttrain.rewards.isolated.serve import serve
from posttrain.rewards.reading.arguments import by_name
from posttrain.rewards.values import Refused, as_text

INSTALL = "pip install 'verifiers==0.3.1'"
OWN_LOOP = ("rollout", "get_prompt_messages", "get_model_response", "add_model_response", "render_completion")
"""Methods that, where an environment has its own, make other conversations than one that grows."""
SANDBOXES = ("SandboxEnv", "CliAgentEnv")
SPLITS = {"train": ("dataset", 1, 0), "validation": ("eval_dataset", 2, 0), "held_out": ("eval_dataset", 2, 1)}
"""Of each split: its data set, and of that every so-manieth row from which on."""


def environment(name: str, arguments: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The environment of this id; and a list to which the faults of its reward functions will be added.

    Raises:
        Refused: it cannot be had, or cannot be played by another loop than its own.
    """
    try:
        from verifiers.legacy.envs.multiturn_env import MultiTurnEnv  # pyright: ignore[reportMissingImports]
        from verifiers.legacy.envs.singleturn_env import SingleTurnEnv  # pyright: ignore[reportMissingImports]
        from verifiers.legacy.utils.env_utils import load_environment  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise Refused(f"verifiers, of a version that has its v0, is not in {sys.executable} ({error}): {INSTALL}") from None
    made = load_environment(name, **arguments)
    kind = type(made)
    if not isinstance(made, MultiTurnEnv):
        raise Refused(f"{name} is a {kind.__name__}, no MultiTurnEnv: its conversations are not one that grows")
    plain = SingleTurnEnv if isinstance(made, SingleTurnEnv) else MultiTurnEnv
    for method in OWN_LOOP:
        if getattr(kind, method) is not getattr(plain, method):
            raise Refused(f"{name} has its own {method}, and is played by its own loop alone")
    if sandbox := next((one.__name__ for one in kind.__mro__ if one.__name__ in SANDBOXES), None):
        raise Refused(f"{name} is a {sandbox}: it asks a service for sandboxes, which is not planned")
    if made.message_type != "chat":
        raise Refused(f"{name} wants completions of text, and conversations are played")
    if made.rubric.has_group_rewards:
        raise Refused(f"{name} has reward functions that compare rollouts with each other, and each episode is graded alone")
    faults = list[str]()
    for one in rubrics(made.rubric):
        if not one.funcs:
            raise Refused(f"{name} has a rubric without a reward function, which grades nothing")
        one.funcs = [_honest(function, faults) for function in one.funcs]
    return made, faults


def rubrics(rubric: Any) -> Iterator[Any]:
    """Those that have functions: a group's, or itself."""
    for one in getattr(rubric, "rubrics", None) or [rubric]:
        yield from [one] if one is rubric else rubrics(one)


def _honest(function: Any, faults: list[str]) -> Any:
    """The same reward function, whose exception is noted: a rubric makes 0.0 of it, which would be trained on."""

    @functools.wraps(function)
    async def called(*given: Any, **named: Any) -> float:
        try:
            score = function(*given, **named)
            return float(await score if inspect.isawaitable(score) else score)
        except Exception as error:
            faults.append(f"{function.__name__}: {as_text(error)}")
            raise

    return called


class Episode:
    """An environment's episode: its state, which is of one use.

    Args:
        made: the environment.
        faults: of its reward functions.
        max_turns: after so many the episode ends, whatever the environment says, and is graded before.
    """

    def __init__(self, made: Any, faults: list[str], max_turns: int) -> None:
        self._made, self._faults, self._max_turns = made, faults, max_turns
        self._state: Any = None
        self._messages = list[Any]()
        self._tools: Mapping[str, Mapping[str, Any]] = {}
        self._over = False

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        """The row of the environment's data set that the columns name."""
        state = await self._made.init_state(self._row(columns), _nobody(), "posttrain")
        self._state = await self._made.setup_state(state) or state
        self._messages = list(self._state["prompt"])
        if await self._made.is_completed(self._state):
            raise Refused("the episode is over before its first turn")
        tools = [
            {"type": "function", "function": {"name": one.name, "description": one.description, "parameters": one.parameters}}
            for one in self._state["tool_defs"]
        ]
        self._tools = {one.name: one.parameters.get("properties", {}) for one in self._state["tool_defs"]}
        return Start([_plain(one) for one in self._messages], tools)

    async def step(self, turn: Turn) -> Step:
        """Their `env_response`, as their own loop asks for it; the last turn is graded by their rubric."""
        from verifiers.legacy.types import AssistantMessage, ToolCall  # pyright: ignore[reportMissingImports]

        called = {f"call_{len(self._messages)}_{number}": call for number, call in enumerate(turn.calls)}
        calls = [
            ToolCall(id=key, name=call.name, arguments=json.dumps(by_name(call.arguments, self._tools.get(call.name, {}))))
            for key, call in called.items()
            if call.fault is None
        ]
        said = AssistantMessage(content=turn.text, reasoning_content=turn.thinking, tool_calls=calls or None)
        await self._append(said, cut_off=turn.finish == "length")
        unread = bool(called) and not calls
        if await self._made.max_turns_reached(self._state) or (not unread and await self._made.is_completed(self._state)):
            return Step(reward=await self._graded(), done=True, info=self._verdict())
        last = len(self._state["trajectory"]) >= self._max_turns
        paid = await self._graded() if last else None
        answers = [] if unread else _normal(await self._made.env_response(self._messages, self._state))
        self._messages += answers
        done = self._state.get("final_env_response") is not None
        if done and not last:
            paid = await self._graded()
        final = _normal(self._state["final_env_response"]) if done else answers
        names = {key: call.name if call.name in self._tools else "unknown" for key, call in called.items()}
        told = _in_order(called, [_plain(one, names) for one in final], final)
        return Step(told, paid, done, self._verdict() if done or last else {})

    async def close(self) -> None:
        """Has it cleaned up, where that was not done at its end."""
        if self._state is not None and not self._over:
            await self._made.cleanup(self._state)
            await self._made.rubric.cleanup(self._state)

    def _row(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        split, number = columns.get("split"), columns.get("number")
        if split not in SPLITS or number is None:
            raise Refused("its tasks are its own: take data.train: {environment: {rows: …}}")
        name, step, first = SPLITS[split]
        rows = getattr(self._made, f"build_{name}")()
        if rows is None:
            raise Refused(f"it has no {name}, of which the split {split} is")
        if (place := first + step * number) >= len(rows):
            raise Refused(f"the split {split} has {len(range(first, len(rows), step))} tasks: ask for no more rows")
        return dict(rows[place])

    async def _append(self, said: Any, *, cut_off: bool) -> None:
        """The turn, as their loop notes it; without ids, which are the parent's."""
        await self._made.add_trajectory_step(
            self._state,
            {
                "prompt": list(self._messages),
                "completion": [said],
                "response": None,
                "tokens": None,
                "reward": None,
                "advantage": None,
                "is_truncated": cut_off,
                "trajectory_id": self._state["trajectory_id"],
                "extras": {},
            },
        )
        self._messages.append(said)

    async def _graded(self) -> float:
        """What their rubric says.

        Raises:
            Refused: one of its functions failed.
        """
        self._over = True
        await self._made.cleanup(self._state)
        self._faults.clear()
        await self._made.rubric.score_rollout(self._state)
        if self._faults:
            raise Refused(f"a reward function failed: {self._faults[0]}")
        await self._made.rubric.cleanup(self._state)
        return float(self._state["reward"])

    def _verdict(self) -> dict[str, Any]:
        scores = {name: float(value) for name, value in (self._state["metrics"] or {}).items()}
        return {"correct": self._state["reward"] >= self._made.pass_threshold, "scores": scores}


def _nobody() -> Any:
    """A client of no model: an environment that asks the policy something itself fails."""
    from verifiers.legacy.clients.client import Client  # pyright: ignore[reportMissingImports]

    def refuses(*given: Any, **named: Any) -> Any:
        raise Refused("it asks the policy's model something itself, and here turns alone are asked for")

    return type("Nobody", (Client,), dict.fromkeys(Client.__abstractmethods__, refuses))(None)


def _normal(messages: Any) -> list[Any]:
    from verifiers.legacy.utils.message_utils import normalize_messages  # pyright: ignore[reportMissingImports]

    return list(normalize_messages(messages))


def _plain(message: Any, names: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """One of their messages as one of ours; a tool's has its name, by the id of the call."""
    content = message.content
    if not isinstance(content, str):
        parts = [part if isinstance(part, dict) else part.model_dump() for part in content or ()]
        if any(part.get("type") != "text" for part in parts):
            raise Refused("it says more than text: images and sounds are not read")
        content = "".join(str(part["text"]) for part in parts)
    role = "user" if message.role == "text" else message.role
    name = names.get(getattr(message, "tool_call_id", ""))
    return {"role": role, "content": content, **({"name": name} if name is not None else {})}


def _in_order(called: Mapping[str, Call], said: Sequence[dict[str, str]], given: Sequence[Any]) -> list[dict[str, str]]:
    """One message for each call, in their order, those that could not be read among them; then whatever else is said."""
    by_call = {getattr(message, "tool_call_id", None): one for message, one in zip(given, said, strict=True)}
    told = list[dict[str, str]]()
    for key, call in called.items():
        if call.fault is not None:
            told.append({"role": "tool", "name": "unknown", "content": f"The call could not be read: {call.fault}."})
        elif key in by_call:
            told.append(by_call.pop(key))
    return [*told, *(one for one in said if any(one is other for other in by_call.values()))]


def episodes(name: str, arguments: Mapping[str, Any], max_turns: int) -> Callable[[dict[str, Any]], Any]:
    """What answers the parent: see `child.answering`.

    Raises:
        Refused: see `environment`.
    """
    made, faults = environment(name, arguments)
    return answering(lambda: Episode(made, faults, max_turns), asyncio.new_event_loop())


def main(told: str) -> None:
    """Serves the environment that is told of in JSON."""
    serve(lambda: episodes(**json.loads(told)))
