"""Scripted environments and engines, for tests of episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Literal

from posttrain.data.answers import AnswerText
from posttrain.data.encoding.glue import Glue
from posttrain.data.rows import Problem
from posttrain.environments.base import Environment, Message, Start, Step, Turn
from posttrain.environments.options import EnvironmentConfig
from posttrain.environments.sessions import Sessions
from posttrain.environments.task import begun, seed_of
from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.batch import Request
from posttrain.rewards.base import Weighted
from posttrain.rollout.engine import Completion, RolloutEngine, Sampling, room_of, sample_seed
from posttrain.settings.data import Encoding
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.episodes.player import Player
from posttrain.train.collect.rollouts import RolloutCollector

QUESTIONS = 3


class ScriptedConfig(EnvironmentConfig):
    """An environment by a function of its seed and the number of the turn, from 1 on."""

    name: Literal["scripted"] = "scripted"
    says: Any = None
    opening: list[dict[str, str]] = [{"role": "user", "content": "Say."}]
    tools: list[dict[str, Any]] = []

    def build(self) -> Callable[[], Environment]:
        return lambda: Scripted(self)


class Scripted:
    def __init__(self, config: ScriptedConfig) -> None:
        self._config, self._seed, self._turns = config, 0, 0

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        self._seed = int(columns.get("number", 0))
        return Start(self._config.opening, self._config.tools)

    async def step(self, turn: Turn) -> Step:
        self._turns += 1
        return self._config.says(self._seed, self._turns, turn)

    async def close(self) -> None:
        pass


def said(*texts: str, role: str = "user", reward: float | None = None, **more: Any) -> Step:
    messages: list[Message] = [{"role": role, "content": text} for text in texts]
    return Step(messages, reward, **more)


class RandomIds:
    """An engine whose turns are random ids, special ones among them, of random lengths; some end, some are cut off."""

    def __init__(self, vocabulary: int, ends: Sequence[int], longest: int = 8) -> None:
        self._vocabulary, self._ends, self._longest, self.said = vocabulary, list(ends), longest, set[tuple[int, ...]]()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        return [
            [
                self._one(Random(sample_seed(sampling, one.question, one.sample + i, one.turn)), room_of(one, sampling))
                for i in range(one.n)
            ]
            for one in requests
        ]

    def _one(self, draw: Random, room: int) -> Completion:
        ids = [draw.randrange(self._vocabulary) for _ in range(min(room, draw.randint(1, self._longest)))]
        ids = [one for one in ids if one not in self._ends] or [next(i for i in range(99) if i not in self._ends)]
        ends = len(ids) < room and draw.random() < 0.8
        ids += [draw.choice(self._ends)] if ends else []
        self.said.add(tuple(ids))
        return Completion(ids, [-0.5] * len(ids), "stop" if ends else "length")

    def sync(self, model: Any, version: int) -> None:
        pass

    def close(self) -> None:
        pass


def player(
    config: EnvironmentConfig,
    engine: RolloutEngine,
    tokenizer: Any,
    encoding: Encoding,
    ends: Sequence[int],
    *,
    context: int = 4096,
) -> Player:
    glue = Glue(tokenizer, encoding, ends, before=config.before, after=config.after, limit=config.observation_tokens)
    return Player(engine, Sessions.of(config), glue, AnswerText(tokenizer), config, context=context)


def row(columns: Mapping[str, Any], start: Start) -> dict[str, Any]:
    """A row whose environment began so."""
    return begun(columns, seed_of(columns, 0), start)


def collection_of(
    algorithm: Algorithm,
    engine: RolloutEngine,
    model: Any,
    tokenizer: Any,
    plays: Player | None,
    asked: Sequence[Problem],
    *rewards: Weighted,
    max_tokens: int = 6,
    **options: Any,
) -> Collection:
    """The first collection, played or sampled at once."""
    sampling = Sampling(max_tokens=max_tokens, seed=3)
    collector = RolloutCollector(
        asked, algorithm, engine, rewards, sampling, tokenizer, questions=QUESTIONS, player=plays, **options
    )
    return collector.collect(model, 0, 0.0)
