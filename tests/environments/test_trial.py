"""What `posttrain env check` finds, and that it finds nothing where nothing is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import pytest

from environments.test_kinds import CONFIGS
from posttrain.environments.base import Environment, Start, Step, Turn
from posttrain.environments.options import EnvironmentConfig
from posttrain.environments.trial import POLICIES, tried

HELLO = [{"role": "user", "content": "hello"}]


class Own(EnvironmentConfig):
    """An environment of the tests, which does what a function says."""

    makes_tasks: ClassVar[bool] = True

    name: Literal["own"] = "own"
    says: Any = None

    def build(self) -> Callable[[], Environment]:
        """See `EnvironmentConfig`."""
        return lambda: Told(self.says())


class Told:
    """An `Environment`; its step is a function of the turn."""

    def __init__(self, step: Callable[[Turn], Step]) -> None:
        self._step = step

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        """See `Environment`."""
        return Start(HELLO)

    async def step(self, turn: Turn) -> Step:
        """See `Environment`."""
        return self._step(turn)

    async def close(self) -> None:
        """See `Environment`."""


def counted(count: itertools.count[int]) -> Step:
    return Step([{"role": "user", "content": str(next(count))}])


def own_counter() -> Callable[[Turn], Step]:
    count = itertools.count()
    return lambda turn: counted(count)


def shared_counter() -> Callable[[], Callable[[Turn], Step]]:
    count = itertools.count()
    return lambda: lambda turn: counted(count)


def one_for_all() -> Callable[[], Callable[[Turn], Step]]:
    """Episodes share what is made anew when one is over, so that only those that overlap see each other."""
    state = {"turns": 0}

    def step(turn: Turn) -> Step:
        state["turns"] = (state["turns"] + 1) % 3
        return Step([{"role": "user", "content": str(state["turns"])}], done=state["turns"] == 0)

    return lambda: step


def fails(turn: Turn) -> Step:
    raise KeyError("lost")


FAULTS: list[tuple[Callable[[], Callable[[Turn], Step]], str]] = [
    (shared_counter(), "played in another order, it differs from turn 1 on"),
    (one_for_all(), "played at once, it differs from turn 1 on"),
    (lambda: fails, "turn 1: raised KeyError: 'lost'"),
    (lambda: lambda turn: Step(), "turn 1: step gave no message"),
    (lambda: lambda turn: Step([{"content": "x"}]), "turn 1: a message is"),
]


@pytest.mark.parametrize(("says", "fault"), FAULTS, ids=[fault for _, fault in FAULTS])
def test_what_is_wrong_with_an_environment_is_found(says: Any, fault: str) -> None:
    trials = tried(Own(max_turns=3, says=says))
    assert all(any(fault in one for one in trial.faults) for trial in trials), trials


@pytest.mark.parametrize("config", [*CONFIGS, Own(max_turns=3, says=own_counter)], ids=lambda config: config.name)
def test_nothing_is_found_where_nothing_is(config: EnvironmentConfig) -> None:
    trials = tried(config)
    assert [trial.policy for trial in trials] == list(POLICIES)
    for trial in trials:
        assert trial.faults == [] and len(trial.episodes) == 8 and all(len(one.lines) > 1 for one in trial.episodes)
    assert len({tuple(one.lines) for one in trials[0].episodes}) > 1 or config.name == "own"
