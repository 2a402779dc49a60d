"""Episodes as rows: one turn is a run of today, what ends an episode, and what an environment does wrong."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from episodes import QUESTIONS, RandomIds, Scripted, ScriptedConfig, collection_of, player, row, said
from posttrain import Origin, Sampling, build_algorithm
from posttrain.data.reader import Reader
from posttrain.data.rows import Problem
from posttrain.data.sources import Record
from posttrain.environments.base import Call, Environment, Start, Step, Turn
from posttrain.environments.kinds.echo import EchoConfig
from posttrain.environments.kinds.guess import GuessConfig
from posttrain.environments.options import EnvironmentConfig
from posttrain.environments.reward import paid_by
from posttrain.environments.task import begun, seed_of
from posttrain.errors import RewardError, SetupError
from posttrain.estimator.algorithm import Algorithm
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.rewards.base import Weighted
from posttrain.rollout.hf import HFEngine
from posttrain.settings.data import Encoding
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.episodes.credit import credited
from posttrain.train.collect.episodes.episode import Episode, Played
from posttrain.train.collect.episodes.metrics import episode_metrics
from posttrain.train.collect.episodes.player import Asked, Player
from tiny import Thirds, make_model

N = 4
PLAIN = Encoding(chat_template=False)
MODEL, TOKENIZER = make_model()
ENDS = eos_ids(MODEL, TOKENIZER)


def problems(start: Callable[[Mapping[str, Any]], Start] | None = None, number: int = 6) -> list[Problem]:
    """Questions; with what `start` makes of a row as their prompt, where there is an environment."""

    def columns(i: int) -> dict[str, Any]:
        made: dict[str, Any] = {"prompt": f"{i}+{i}=", "answer": str(2 * i), "number": i}
        return made if start is None else begun(made, seed_of(made, 0), start(made))

    reader = Reader(PLAIN, TOKENIZER, ENDS)
    return reader.problems((Record(f"row {i}", columns(i)) for i in range(number)), needs=(), anything=True)[0]


def collected(
    algorithm: str | Algorithm, plays: Player | None, asked: list[Problem], *rewards: Weighted, **options: Any
) -> Collection:
    value = build_algorithm(algorithm, rollouts=N, updates=1) if isinstance(algorithm, str) else algorithm
    given = rewards or (Weighted(Thirds()),)
    return collection_of(value, HFEngine(MODEL, TOKENIZER), MODEL, TOKENIZER, plays, asked, *given, **options)


def own_prompt(columns: Mapping[str, Any]) -> Start:
    return Start([{"role": "user", "content": columns["prompt"]}])


@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "rloo"])
def test_one_turn_is_a_run_without_an_environment(algorithm: str) -> None:
    echo = EchoConfig(max_turns=1)
    plays = player(echo, HFEngine(MODEL, TOKENIZER), TOKENIZER, PLAIN, ENDS)
    plain, played = collected(algorithm, None, problems()), collected(algorithm, plays, problems(own_prompt))
    for name, value in plain.flat.fields.items():
        assert torch.equal(played.flat.fields[name], value), name
    assert played.flat.fields.keys() == plain.flat.fields.keys()
    for one, other in zip(plain.rows, played.rows, strict=True):
        assert one.prompt.tolist() == other.prompt.tolist() and one.mask.tolist() == other.mask.tolist()
    timed = ("rollout/seconds", "rollout/tokens_per_second", "rollout/sync_seconds")
    assert {k: v for k, v in played.metrics.items() if not k.startswith("env/") and k not in timed} == {
        k: v for k, v in plain.metrics.items() if k not in timed
    }


def test_the_policy_alone_carries_loss_and_engines_agree() -> None:
    """The log-probs that were sampled are the model's of the whole row, over all turns."""
    config = GuessConfig(max_turns=3, turn_tokens=3, question="?", before="[", after="]")
    plays = player(config, HFEngine(MODEL, TOKENIZER), TOKENIZER, PLAIN, ENDS)
    task = [{"split": "train", "seed": 0, "number": i} for i in range(6)]
    asked = [row(one, Start([{"role": "user", "content": "?"}])) for one in task]
    made = Reader(PLAIN, TOKENIZER, ENDS).problems((Record("", one) for one in asked), needs=(), anything=True)[0]
    collection = collected("grpo", plays, made, paid_by(config, judged=False), max_tokens=9)
    batch = collection.batch
    assert batch.tokens is not None and batch.behavior_logp is not None and batch.reward is not None
    assert torch.equal(batch.loss_mask, (batch.origin == Origin.ROLLOUT) & batch.loss_mask)
    others = 0
    for i, one in enumerate(collection.rows):
        ids = torch.tensor([[*one.prompt.tolist(), *one.completion.tolist()]])
        logits = MODEL(ids).logits[0, len(one.prompt) - 1 : -1].double().log_softmax(-1)
        logp = logits.gather(-1, ids[0, len(one.prompt) :, None])[:, 0].detach()
        own = torch.from_numpy(one.mask)
        torch.testing.assert_close(batch.behavior_logp[i, : len(own)][own].double(), logp[own], rtol=0, atol=1e-5)
        assert not batch.behavior_logp[i, : len(own)][~own].any()
        assert TOKENIZER.decode(one.completion[~one.mask]) in ("[!]", "[!][!]"), "what it said, between its turns"
        others += int((~own).sum())
    assert others > 0 and collection.metrics["env/turns"] > 1 and collection.metrics["env/end/max_turns"] > 0
    assert collection.samples[0]["turns"][0]["others"] == [{"role": "user", "content": "!"}]


def test_turns_are_paid_one_by_one() -> None:
    """Numbers of turns where the policy wrote, what each was paid at its end, times its weight; what rewards say, last."""
    opening = [{"role": "user", "content": "?"}]
    config = ScriptedConfig(
        says=lambda n, t, turn: said("!", reward=float(1 + len(turn.text) % 3)),
        opening=opening,
        max_turns=3,
        turn_tokens=2,
        credit="returns",
        weight=2,
    )
    plays = player(config, HFEngine(MODEL, TOKENIZER), TOKENIZER, PLAIN, ENDS)
    task = [row({"number": i}, Start(opening)) for i in range(6)]
    made = Reader(PLAIN, TOKENIZER, ENDS).problems((Record("", one) for one in task), needs=(), anything=True)[0]
    algorithm = credited(build_algorithm("rloo", rollouts=N, kl_coef=0.0), config)
    rewards = (paid_by(config, judged=False), Weighted(Thirds()))
    batch = collected(algorithm, plays, made, *rewards, max_tokens=6).batch
    assert batch.turn is not None and batch.token_reward is not None and batch.reward is not None
    assert torch.equal(batch.turn > 0, batch.loss_mask) and int(batch.turn.max()) == 3
    ends = batch.token_reward != 0
    assert set(batch.token_reward[ends].tolist()) == {4.0, 6.0}  # of one and of two characters
    assert torch.equal(batch.token_reward.sum(-1), 2 * batch.rewards_by_name["environment"])
    assert all(len(set(row[row > 0].tolist())) == int(end.sum()) for row, end in zip(batch.turn, ends, strict=True))
    prepared = algorithm.prepare(batch)
    assert prepared.advantage is not None and not prepared.advantage[~batch.loss_mask].any()
    first = torch.stack([row[numbers == 1][0] for row, numbers in zip(prepared.advantage, batch.turn, strict=True)])
    rows = build_algorithm("rloo", rollouts=N, kl_coef=0.0).prepare(batch).advantage
    assert rows is not None and torch.allclose(first, rows[:, 0], rtol=0, atol=1e-12)
    assert (prepared.advantage - rows)[batch.turn == 2].abs().max() > 0.01
    with pytest.raises(SetupError, match="without an environment there are none"):
        collected(algorithm, None, problems())


def episodes(config: EnvironmentConfig, max_tokens: int = 20, number: int = 8, **options: Any) -> list[Episode]:
    engine = RandomIds(250, ENDS, longest=3)
    return played(player(config, engine, TOKENIZER, PLAIN, ENDS, **options), config, max_tokens, number)


def played(plays: Player, config: Any, max_tokens: int, number: int) -> list[Episode]:
    start = Start(getattr(config, "opening", [{"role": "user", "content": "Say."}]), getattr(config, "tools", ()))
    asked = [Asked(i, [65, 66], row({"number": i}, start), 1) for i in range(number)]
    groups = plays.play(asked, Sampling(max_tokens=max_tokens))
    plays.close()
    return [episode for group in groups for episode in group]


def test_what_ends_an_episode() -> None:
    def goes_on(number: int, turn: int, said_: Turn) -> Step:
        return said("on", reward=0.5)

    by_turns = episodes(ScriptedConfig(says=goes_on, max_turns=3))
    assert {(one.end, len(one.played)) for one in by_turns} == {("max_turns", 3)}
    by_tokens = episodes(ScriptedConfig(says=goes_on, max_turns=99), max_tokens=5)
    assert {one.end for one in by_tokens} == {"max_tokens"} and all(one.tokens <= 5 for one in by_tokens)
    assert all(one.played[-1].glue.size == 0 for one in [*by_turns, *by_tokens])
    by_context = episodes(ScriptedConfig(says=goes_on, max_turns=99), max_tokens=500, context=30)
    assert {one.end for one in by_context} == {"context"}
    for one in by_context:
        assert 2 + len(one.row(0)[0]) <= 30
    done = episodes(ScriptedConfig(says=lambda n, t, _: said("x") if t < 2 else Step(done=True), max_turns=9))
    assert {(one.end, len(one.played)) for one in done} == {("done", 2)}


def test_turns_without_a_call_end_an_episode_where_there_are_tools() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    config = ScriptedConfig(says=lambda n, t, _: said("?"), max_turns=9, max_invalid=2, tools=[tool])
    assert {(one.end, len(one.played)) for one in episodes(config)} == {("invalid", 2)}


def test_an_observation_is_cut_in_its_middle() -> None:
    config = ScriptedConfig(says=lambda n, t, _: said("a" * 500 + "z" * 500), max_turns=2, observation_tokens=20)
    for one in episodes(config):
        text = TOKENIZER.decode(one.played[0].glue)
        assert one.played[0].cut and len(one.played[0].glue) == 20
        assert text.startswith("aaa") and text.endswith("zzz") and " [...] " in text


async def hangs() -> None:
    await asyncio.sleep(3600)


HOSTILE: dict[str, Callable[[int], Any]] = {
    "raises": lambda turn: 1 / 0,
    "is None": lambda turn: None,
    "is a string": lambda turn: "on",
    "pays NaN": lambda turn: said("on", reward=float("nan")),
    "pays too much": lambda turn: said("on", reward=1e308),
    "pays text": lambda turn: said("on", reward="much"),  # type: ignore[arg-type]
    "says nothing": lambda turn: Step(),
    "says bytes": lambda turn: Step([{"role": "user", "content": b"on"}]),  # type: ignore[dict-item]
    "has an unknown role": lambda turn: said("on", role="referee"),
    "says too much": lambda turn: said("x" * (2**24 + 1)),
    "says half a character": lambda turn: said("\ud800"),
    "has an info that is no data": lambda turn: said("on", info={"is": object()}),
}


@pytest.mark.parametrize("does", HOSTILE)
def test_what_an_environment_does_wrong_costs_its_own_episode(does: str) -> None:
    """One of eight, in its second turn; the others are what they are without it."""

    def says(number: int, turn: int, _: Turn) -> Step:
        return HOSTILE[does](turn) if (number, turn) == (3, 2) else said("on", reward=0.5)

    usual = episodes(ScriptedConfig(says=lambda n, t, _: said("on", reward=0.5), max_turns=3))
    found = episodes(ScriptedConfig(says=says, max_turns=3))
    assert [one.end for one in found] == ["fault" if i == 3 else "max_turns" for i in range(8)]
    assert found[3].fault and len(found[3].played) == 2
    for i in (i for i in range(8) if i != 3):
        for mine, other in zip(found[i].row(0), usual[i].row(0), strict=True):
            assert mine.tolist() == other.tolist()


class Hostile(Scripted):
    """Does something wrong in one of its methods."""

    def __init__(self, config: ScriptedConfig, where: str) -> None:
        super().__init__(config)
        self._where = where

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        await self._maybe(columns["number"] == 3, "reset")
        start = await super().reset(columns, seed)
        return Start([{"role": "user", "content": "Other."}]) if (self._where, self._seed) == ("differs", 3) else start

    async def step(self, turn: Turn) -> Step:
        await self._maybe(self._seed == 3, "step")
        return await super().step(turn)

    async def close(self) -> None:
        await self._maybe(self._seed == 3, "close")

    async def _maybe(self, mine: bool, place: str) -> None:
        if mine and self._where.startswith(place):
            await (hangs() if self._where.endswith("hangs") else self._raises())

    async def _raises(self) -> None:
        raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("where", "end"),
    [
        ("reset raises", "fault"),
        ("reset hangs", "deadline"),
        ("step raises", "fault"),
        ("step hangs", "deadline"),
        ("close raises", "max_turns"),
        ("differs", "fault"),
    ],
)
def test_failures_are_masked_and_counted(where: str, end: str) -> None:
    class Config(ScriptedConfig):
        def build(self) -> Callable[[], Environment]:
            return lambda: Hostile(self, where)

    config = Config(says=lambda n, t, _: said("on", reward=0.5), max_turns=2, turn_tokens=2, deadline=0.2)
    plays = player(config, HFEngine(MODEL, TOKENIZER), TOKENIZER, PLAIN, ENDS)
    asked = problems(lambda columns: Start(config.opening), number=QUESTIONS + 1)
    collection = collected("grpo", plays, asked, dataclasses.replace(paid_by(config, judged=True), max_error_rate=1.0))
    failed = torch.tensor([where.startswith("row 3") for where in collection.where]) & (end != "max_turns")
    assert collection.batch.reward_mask is not None and torch.equal(collection.batch.reward_mask, ~failed)
    assert collection.metrics.get(f"env/end/{end}", 0) == pytest.approx(
        float(failed.double().mean()) if end != "max_turns" else 1.0
    )


@pytest.mark.parametrize("how", ["raises", "hangs", "is late to begin"])
def test_what_failed_by_chance_is_played_again(how: str, tmp_path: Path) -> None:
    """Once for each of some rows, which it knows by a file that it leaves: afterwards all is what it is without that."""

    class Shaky(Scripted):
        async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
            start = await super().reset(columns, seed)
            await self._may_fail("is late to begin")
            return start

        async def step(self, turn: Turn) -> Step:
            if self._turns == 1:
                await self._may_fail(how if how != "is late to begin" else "")
            return await super().step(turn)

        async def _may_fail(self, now: str) -> None:
            left = tmp_path / str(self._seed)
            if now == how and self._seed % 3 == 1 and not left.exists():
                left.touch()
                await hangs() if how != "raises" else 1 / 0

    class Config(ScriptedConfig):
        def build(self) -> Callable[[], Environment]:
            return lambda: Shaky(self)

    given: dict[str, Any] = {"says": lambda n, t, _: said("on", reward=float(n)), "max_turns": 3, "deadline": 0.2}
    usual, found = episodes(ScriptedConfig(**given)), episodes(Config(**given, retries=1))
    assert [one.retried for one in found] == [int(i % 3 == 1) for i in range(8)] and len(list(tmp_path.iterdir())) == 3
    for one, other in zip(found, usual, strict=True):
        assert one.end == other.end and one.version == other.version and one.shown()["turns"] == other.shown()["turns"]
        for mine, theirs in zip(one.row(0), other.row(0), strict=True):
            assert mine.tolist() == theirs.tolist()
    assert episode_metrics(found)["env/retried"] == 3 / 8 and found[1].shown()["retried"] == 1
    assert episode_metrics(found)["env/faults"] == 0 == episode_metrics(usual)["env/retried"]


def test_a_bug_of_the_environment_fails_each_time() -> None:
    tried = list[int]()

    def says(number: int, turn: int, _: Turn) -> Step:
        if (number, turn) == (3, 2):
            tried.append(number)
        return HOSTILE["raises"](turn) if (number, turn) == (3, 2) else said("on")

    found = episodes(ScriptedConfig(says=says, max_turns=3, retries=3))
    assert [(one.end, one.retried) for one in found] == [("fault", 3) if i == 3 else ("max_turns", 0) for i in range(8)]
    assert len(tried) == 4


def test_a_class_that_makes_environments_is_not_closed_as_one_of_them() -> None:
    class Config(ScriptedConfig):
        def build(self) -> Callable[[], Environment]:
            config = self

            class Made(Scripted):
                def __init__(self) -> None:
                    super().__init__(config)

            return Made

    found = episodes(Config(says=lambda n, t, _: said("on"), max_turns=2))
    assert {one.end for one in found} == {"max_turns"}


@pytest.mark.parametrize("most", [1, 3, 8])
def test_an_environment_that_has_room_for_few_plays_them_in_turn(most: int) -> None:
    living, highest = 0, 0

    class Counted(Scripted):
        async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
            nonlocal living, highest
            living += 1
            highest = max(highest, living)
            return await super().reset(columns, seed)

        async def close(self) -> None:
            nonlocal living
            living -= 1

    class Config(ScriptedConfig):
        at_once: ClassVar[int] = most  # type: ignore[assignment]

        def build(self) -> Callable[[], Environment]:
            return lambda: Counted(self)

    given: dict[str, Any] = {"says": lambda n, t, _: said("on", reward=float(n)), "max_turns": 3}
    usual, found = episodes(ScriptedConfig(**given)), episodes(Config(**given))
    assert (living, highest) == (0, most)
    for one, other in zip(found, usual, strict=True):
        assert [part.tolist() for part in one.row(0)] == [part.tolist() for part in other.row(0)]


def test_too_many_failures_end_the_run() -> None:
    config = ScriptedConfig(says=lambda n, t, _: HOSTILE["raises"](t), max_turns=2)
    plays = player(config, HFEngine(MODEL, TOKENIZER), TOKENIZER, PLAIN, ENDS)
    with pytest.raises(RewardError, match=r"environment failed on \d+ of the last \d+ .*ZeroDivisionError"):
        collected("grpo", plays, problems(lambda columns: Start(config.opening)), paid_by(config, judged=True))


def test_limits_are_masked_where_the_recipe_says_so() -> None:
    config = ScriptedConfig(says=lambda n, t, _: said("on", reward=float(n)), max_turns=2, turn_tokens=2, mask=["max_turns"])
    plays = player(config, HFEngine(MODEL, TOKENIZER), TOKENIZER, PLAIN, ENDS)
    collection = collected("grpo", plays, problems(lambda columns: Start(config.opening)), paid_by(config, judged=True))
    ended = collection.metrics["env/end/max_turns"]
    assert 0 < ended == len(collection.muted) / len(collection.rows)
    assert collection.batch.reward_mask is not None and collection.batch.reward_mask.all()


def test_turns_whose_calls_failed_carry_no_loss_and_stay_in_the_baseline() -> None:
    """The second turn of each episode fails; nothing else of the batch is moved, rewards and what they are held against."""

    def fails(number: int, turn: int, said_: Turn) -> Step:
        return Step([{"role": "user", "content": "?", **({"error": True} if turn == 2 else {})}], float(number % 3))

    start, made = Start([{"role": "user", "content": "Say."}]), dict[bool, Collection]()
    for masked in (False, True):
        config = ScriptedConfig(says=fails, max_turns=3, turn_tokens=2, mask_failed_calls=masked)
        plays = player(config, HFEngine(MODEL, TOKENIZER), TOKENIZER, PLAIN, ENDS)
        made[masked] = collected("grpo", plays, problems(lambda columns: start), paid_by(config, judged=False), max_tokens=6)
        plays.close()
    plain, masked_ = made[False].flat, made[True].flat
    for name, value in plain.fields.items():
        assert name == "loss_mask" or torch.equal(value, masked_.fields[name]), name
    learnt, kept = plain.fields["loss_mask"], masked_.fields["loss_mask"]
    for i, row_ in enumerate(made[True].rows):
        span = plain.span(i)
        turns = (learnt[span].int().diff(prepend=torch.zeros(1, dtype=torch.int32)) == 1).cumsum(0)
        assert torch.equal(kept[span], learnt[span] & (turns != 2)) and row_.mask.tolist() == kept[span].tolist()
    assert made[True].metrics["env/failed_calls"] == pytest.approx(1 / 3)
    assert kept.sum() < learnt.sum()


def test_a_call_that_cannot_be_read_has_failed_whatever_is_said_of_it() -> None:
    calls = [Call("f"), Call("", fault="it is cut off")]
    one = Played(
        np.array([1, 2], np.int32), np.zeros(2, np.float32), Turn("", calls=calls), said("on"), np.array([3], np.int32)
    )
    other = dataclasses.replace(one, turn=Turn("", calls=calls[:1]))
    assert Episode((one, other), "done", 0).failed_calls().tolist() == [True, True, False, False, False, False]
    assert Episode((), "fault", 0, "it broke").failed_calls().tolist() == [False]
