"""The environments of a run at work: many at a time, each under a deadline, and whatever one does costs its own episode."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from posttrain.environments.base import (
    Closes,
    Environment,
    Forkable,
    KeepsTime,
    Message,
    Relabelling,
    Start,
    Step,
    Turn,
)
from posttrain.environments.options import EnvironmentConfig
from posttrain.rewards.values import MAX_SCORE, Refused, as_text

T = TypeVar("T")
ROLES = ("system", "user", "assistant", "tool", "developer")
MOST = 2**24  # characters that an environment may say at a time
CLOSING = 5.0  # seconds to close
ALIVE = 60.0  # seconds until a thread that ends has ended


@dataclass(frozen=True, slots=True)
class Failure:
    """Nobody's answer: an environment that missed its deadline, or failed. Masked and counted, never graded."""

    end: Literal["deadline", "fault"]
    reason: str


class Sessions:
    """Environments of one kind, each of one episode.

    They run in a thread of their own, so that whoever calls may have an event loop, or none.

    Args:
        make: makes one.
        deadline: seconds for the beginning, and for each turn.
        concurrency: how many work at a time.
    """

    def __init__(self, make: Callable[[], Environment], *, deadline: float, concurrency: int) -> None:
        self._make, self._deadline, self._concurrency = make, deadline, concurrency
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="environments")
        self._thread.start()

    @classmethod
    def of(cls, config: EnvironmentConfig) -> Sessions:
        """Those of a recipe.

        Raises:
            SetupError: the environment does not start.
        """
        return cls(config.build(), deadline=config.deadline, concurrency=config.concurrency)

    def reset(self, tasks: Sequence[tuple[Mapping[str, Any], int]]) -> list[tuple[Environment | None, Start | Failure]]:
        """An environment for each pair of columns and seed, and how it begins; None where it cannot be made."""

        async def begun(columns: Mapping[str, Any], seed: int) -> tuple[Environment | None, Start | Failure]:
            try:
                one = self._make()
            except Exception as error:
                return None, Failure("fault", as_text(error))
            return one, await self._guarded(one, lambda: one.reset(columns, seed), _checked_start)

        return self._all([partial(begun, columns, seed) for columns, seed in tasks])

    def step(self, turns: Sequence[tuple[Environment, Turn]]) -> list[Step | Failure]:
        """What comes of each turn."""

        async def taken(one: Environment, turn: Turn) -> Step | Failure:
            return await self._guarded(one, lambda: one.step(turn), _checked_step)

        return self._all([partial(taken, one, turn) for one, turn in turns])

    def relabel(
        self, asked: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]
    ) -> list[Mapping[str, Any] | Failure | None]:
        """For each pair of columns and infos the columns of the goal that was reached, by an environment of its own; None
        where none was.
        """

        async def told(columns: Mapping[str, Any], infos: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | Failure | None:
            try:
                one = self._make()
            except Exception as error:
                return Failure("fault", as_text(error))
            if not isinstance(one, Relabelling):
                return Failure("fault", "it has no method relabel")
            return await self._guarded(one, lambda: one.relabel(columns, infos), _checked_columns)

        return self._all([partial(told, columns, infos) for columns, infos in asked])

    def states(self, environments: Sequence[Forkable]) -> list[bytes]:
        """Where each is."""

        async def state(one: Forkable) -> bytes:
            return one.state()

        return self._all([partial(state, one) for one in environments])

    def branches(self, asked: Sequence[tuple[Forkable, bytes, Sequence[Turn]]]) -> list[list[tuple[Step | Failure, bytes]]]:
        """Of each environment what comes of several turns from one state, and its state after each."""

        async def moved(one: Forkable, state: bytes, turn: Turn) -> Step:
            one.restore(state)
            return await one.step(turn)

        async def tried(one: Forkable, state: bytes, turns: Sequence[Turn]) -> list[tuple[Step | Failure, bytes]]:
            found = list[tuple[Step | Failure, bytes]]()
            for turn in turns:
                step = await self._guarded(one, partial(moved, one, state, turn), _checked_step)
                found.append((step, state if isinstance(step, Failure) else one.state()))
            return found

        return self._all([partial(tried, *one) for one in asked])

    def __enter__(self) -> Sessions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def end(self, environments: Sequence[Environment]) -> None:
        """Closes these, whatever they do."""

        async def closed(one: Environment) -> None:
            with contextlib.suppress(Exception):  # its episode is over
                await asyncio.wait_for(one.close(), CLOSING)

        self._all([partial(closed, one) for one in environments])

    def close(self) -> None:
        """Ends the thread, and what makes environments, where that can be."""
        if isinstance(self._make, Closes) and not isinstance(self._make, type):  # a class's close is of its environments
            self._make.close()
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(_cancelled(), self._loop).result(ALIVE)
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ALIVE)
        if not self._thread.is_alive() and not self._loop.is_closed():
            self._loop.close()

    def _all(self, work: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
        async def together() -> list[T]:
            gate = asyncio.Semaphore(self._concurrency)

            async def one(part: Callable[[], Awaitable[T]]) -> T:
                async with gate:
                    return await part()

            return list(await asyncio.gather(*(one(part) for part in work)))

        return asyncio.run_coroutine_threadsafe(together(), self._loop).result()

    async def _guarded(
        self, one: Environment, call: Callable[[], Awaitable[Any]], checked: Callable[[Any], T]
    ) -> T | Failure:
        own = isinstance(one, KeepsTime)
        try:
            return checked(await (call() if own else asyncio.wait_for(call(), self._deadline)))
        except TimeoutError:
            return Failure("deadline", f"no answer in {self._deadline:g} s")
        except Exception as error:
            return Failure("fault", as_text(error))


async def _cancelled() -> None:
    """Ends what is still under way, as where a run is interrupted."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for one in others:
        one.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _checked_start(given: Any) -> Start:
    if not isinstance(given, Start):
        raise Refused(f"reset gave {type(given).__name__}, not a Start")
    if not given.messages:
        raise Refused("reset gave no message")
    return Start(_messages(given.messages), tuple(dict(one) for one in given.tools))


def _checked_columns(given: Any) -> Mapping[str, Any] | None:
    if given is not None and not isinstance(given, Mapping):
        raise Refused(f"relabel gave {type(given).__name__}, not the columns of a row")
    return given


def _checked_step(given: Any) -> Step:
    if not isinstance(given, Step):
        raise Refused(f"step gave {type(given).__name__}, not a Step")
    paid = None if given.reward is None else float(given.reward)
    if paid is not None and not (math.isfinite(paid) and abs(paid) <= MAX_SCORE):
        raise Refused(f"step paid {paid:g}, where a number from {-MAX_SCORE:g} to {MAX_SCORE:g} is expected")
    messages = _messages(given.messages)
    if not given.done and not messages:
        raise Refused("step gave no message, and the episode is not done")
    try:
        info = json.loads(json.dumps(dict(given.info)))
    except (TypeError, ValueError) as error:
        raise Refused(f"step gave an info that is no plain data: {error}") from None
    return Step(messages, paid, bool(given.done), info)


def _messages(given: Sequence[Message]) -> tuple[Message, ...]:
    size = 0
    for one in given:
        if not isinstance(one, Mapping) or one.get("role") not in ROLES or not isinstance(one.get("content"), str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise Refused(f"a message is {{role: {' | '.join(ROLES)}, content: text}}, not {str(one)[:60]!r}")
        if not isinstance(one.get("error", False), bool):
            raise Refused(f"a message's error is true or false, not {str(one['error'])[:60]!r}")
        size += len(one["content"])
    if size > MOST:
        raise Refused(f"said {size} characters at a time, over {MOST}")
    return tuple(dict(one) for one in given)
