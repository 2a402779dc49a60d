"""Episodes with branches: one is plain play, and more are what the environment's reward chooses among them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest

from episodes import RandomIds, player, row
from posttrain import Sampling
from posttrain.environments.base import Forkable, Start, Turn
from posttrain.environments.kinds.calculator import CalculatorConfig
from posttrain.environments.kinds.echo import EchoConfig
from posttrain.environments.kinds.grid import GridConfig
from posttrain.environments.kinds.guess import GuessConfig
from posttrain.environments.kinds.sql import SqlConfig
from posttrain.environments.kinds.twenty import TwentyConfig
from posttrain.environments.kinds.user import UserConfig
from posttrain.environments.options import EnvironmentConfig
from posttrain.estimator.batch import Request
from posttrain.model.load import make_tokenizer
from posttrain.rollout.engine import Completion, sample_seed
from posttrain.settings.data import Encoding
from posttrain.settings.evaluation import Branch
from posttrain.settings.model import CharacterTokenizer
from posttrain.train.collect.episodes.branching import BranchingPlayer
from posttrain.train.collect.episodes.episode import Episode
from posttrain.train.collect.episodes.player import Asked

TOKENIZER: Any = make_tokenizer(CharacterTokenizer(characters="0123456789<>!?neswtakK-"))
END: int = TOKENIZER.eos_token_id
PLAIN = Encoding(chat_template=False)
GUESS = GuessConfig(size=10, question="?", max_turns=3, dense=True)
MAP = "SK.\nD#.\nG.."
GRID = GridConfig(max_turns=10, question="{map}", seen="{column}{row}{key}")

FORKS = [GUESS, GRID, TwentyConfig(max_turns=4), CalculatorConfig(max_turns=4), SqlConfig(max_turns=4)]


class Says:
    """An engine whose turns are any of some texts, by their seeds."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts, self.asked = texts, 0

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        self.asked += sum(one.n for one in requests)
        return [
            [self._one(sample_seed(sampling, one.question, one.sample + i, one.turn)) for i in range(one.n)]
            for one in requests
        ]

    def _one(self, seed: int) -> Completion:
        ids = [*TOKENIZER.encode(Random(seed).choice(self._texts), add_special_tokens=False), END]
        return Completion(ids, [-0.5] * len(ids), "stop")

    def sync(self, model: Any, version: int) -> None:
        pass

    def close(self) -> None:
        pass


def rows(config: EnvironmentConfig, columns: Sequence[Mapping[str, Any]]) -> list[Asked]:
    start = Start([{"role": "user", "content": "?" if isinstance(config, GuessConfig) else MAP}])
    return [Asked(i, [65, 66], row(one, start), 4) for i, one in enumerate(columns)]


def episodes(
    config: EnvironmentConfig, engine: Any, columns: Sequence[Mapping[str, Any]], branch: Branch | None = None
) -> list[list[Episode]]:
    plays = player(config, engine, TOKENIZER, PLAIN, (END,))
    asked, sampling = rows(config, columns), Sampling(max_tokens=40)
    played = (plays if branch is None else BranchingPlayer(plays, branch)).play(asked, sampling)
    plays.close()
    assert not any(one.failed for group in played for one in group)
    return played


def shown(groups: Sequence[Sequence[Episode]]) -> list[Any]:
    return [(one.shown(), one.own.tolist(), one.cut_off, one.row(0)[1].tolist()) for group in groups for one in group]


SECRETS = [{"secret": number} for number in range(10)]


@pytest.mark.parametrize(
    ("config", "columns", "engine"),
    [
        (GUESS, SECRETS, lambda: Says("0123456789")),
        (GUESS, SECRETS, lambda: RandomIds(len(TOKENIZER), (END,), 3)),
        (GRID, [{"map": MAP}], lambda: Says("nesw")),
    ],
)
def test_one_branch_is_plain_play(config: EnvironmentConfig, columns: Any, engine: Any) -> None:
    assert shown(episodes(config, engine(), columns, Branch(n=1))) == shown(episodes(config, engine(), columns))


def test_at_depth_one_it_is_the_best_of_n() -> None:
    config = GUESS.model_copy(update={"max_turns": 1})
    branched = episodes(config, Says("0123456789"), SECRETS, Branch(n=4))
    for question, group in enumerate(branched):
        for sample, one in enumerate(group):
            seeds = [sample_seed(Sampling(max_tokens=40), question, sample * 4 + i, 0) for i in range(4)]
            said = [Random(seed).choice("0123456789") for seed in seeds]
            found = [text for text in said if text == str(question)]
            assert one.played[0].turn.text == (found or said)[0] and len(one.played) == 1


def right(groups: Sequence[Sequence[Episode]]) -> float:
    return float(np.mean([one.played[-1].step.info["correct"] for group in groups for one in group]))


def test_more_branches_and_ways_back_find_more() -> None:
    """Numbers by more guesses a turn; and, where a key must be fetched first and no turn is paid but that, by ways back."""
    plain, branched = (episodes(GUESS, Says("0123456789"), SECRETS, Branch(n=n)) for n in (1, 4))
    assert right(plain) < 0.5 < right(branched)
    acts = ["e", "s", "w", "take"]
    ahead, back = (episodes(GRID, Says(acts), [{"map": MAP}] * 4, Branch(n=3, backtracks=times)) for times in (0, 60))
    assert right(ahead) < 0.2 and right(back) > 0.4
    assert all(len(one.played) <= 10 for group in back for one in group)


@pytest.mark.parametrize("config", FORKS, ids=lambda one: one.name)
def test_an_environment_that_is_brought_back_goes_on_as_before(config: EnvironmentConfig) -> None:
    texts = ["e", "take", "calc(1+2)", "query(SELECT name FROM people)", "has 1?", "3", "w", "s"]

    async def told() -> tuple[list[Any], list[Any]]:
        one = config.build()()
        assert config.forks and isinstance(one, Forkable)
        await one.reset({"split": "train", "seed": 0, "number": 3} | ({"map": MAP} if config is GRID else {}), 0)
        for text in texts[:2]:
            await one.step(Turn(text))
        state = one.state()
        first = [await one.step(Turn(text)) for text in texts]
        one.restore(state)
        again = [await one.step(Turn(text)) for text in texts]
        await one.close()
        return first, again

    first, again = asyncio.run(told())
    assert first == again


@pytest.mark.parametrize("config", [EchoConfig(max_turns=2), UserConfig(max_turns=5)], ids=lambda one: one.name)
def test_what_does_not_fork_says_so(config: EnvironmentConfig) -> None:
    assert not config.forks and not isinstance(config.build()(), Forkable)


@pytest.mark.parametrize("back", [0, 2])
def test_a_search_asks_for_n_turns_at_each_place(back: int) -> None:
    engine = Says("<")  # no guess, and so never right
    [group, *_] = episodes(GUESS, engine, SECRETS[:1], Branch(n=3, backtracks=back))
    assert [one.end for one in group] == ["max_turns"] * 4
    assert engine.asked == 4 * 3 * (3 + back)
