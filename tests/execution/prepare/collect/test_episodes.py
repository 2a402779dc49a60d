"""Episodes before training: what is kept of them, by their ids, and the goals that failed ones did reach."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from environments.played import row
from episodes import RandomIds, ScriptedConfig, player, said
from posttrain.data.reader import Reader
from posttrain.data.rows import Problem
from posttrain.data.sources import Record
from posttrain.data.transforms import Transforms
from posttrain.data.transforms.as_text import AsText
from posttrain.data.transforms.control_token import ControlToken
from posttrain.environments.base import Environment, Start, Step, Turn
from posttrain.environments.kinds.calculator import CalculatorConfig
from posttrain.environments.kinds.grid import WAYS, GridConfig
from posttrain.environments.kinds.guess import GuessConfig
from posttrain.environments.options import EnvironmentConfig
from posttrain.environments.sessions import Sessions
from posttrain.environments.task import COLUMN, begun, seed_of, task_of
from posttrain.errors import DataError, RewardError
from posttrain.execution.prepare.collect.episodes import playing
from posttrain.execution.prepare.collect.episodes.become import examples_of
from posttrain.execution.prepare.collect.episodes.line import Lived, Played
from posttrain.execution.prepare.collect.episodes.playing import play
from posttrain.execution.prepare.collect.episodes.relabel import Reached, relabelled
from posttrain.model.load import load
from posttrain.rewards.grading import ExactMatch
from posttrain.rollout.engine import Sampling
from posttrain.settings.data import Encoding
from posttrain.settings.data.collect import FeedbackSampling, PairSampling, RejectionSampling
from posttrain.settings.model import ModelConfig

SMALL = ModelConfig.model_validate(
    {"from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1}, "tokenizer": "characters"}
)
END = 0  # ends what the policy says; what others say is in capital letters' places


def problem_of(config: EnvironmentConfig, columns: Mapping[str, Any], where: str) -> Problem:
    start = asyncio.run(config.build()().reset(columns, 0))
    made = begun(columns, seed_of(columns, 0), start)
    return Problem([*map(ord, str(made["prompt"]))], made, where)


def begin(config: EnvironmentConfig) -> Any:
    return lambda records: {one.where: problem_of(config, one.columns, one.where) for one in records}


def lived(config: EnvironmentConfig, columns: Mapping[str, Any], texts: Sequence[str]) -> Lived:
    """An episode in which these are said, with a character's code for its id."""

    async def played() -> list[Step]:
        environment = config.build()()
        await environment.reset(columns, seed_of(columns, 0))
        steps = list[Step]()
        for text in texts:
            steps.append(await environment.step(Turn(text)))
            if steps[-1].done:
                break
        return steps

    ids, mask, turns = list[int](), list[bool](), list[dict[str, Any]]()
    steps = asyncio.run(played())
    for number, (text, step) in enumerate(zip(texts, steps, strict=False), 1):
        own = [*map(ord, text), END]
        others = "".join(str(message["content"]) for message in step.messages) if number < len(steps) else ""
        ids += [*own, *map(ord, others)]
        mask += [*[True] * len(own), *[False] * len(others)]
        turn = {"text": text, "others": [dict(message) for message in step.messages], "info": dict(step.info)}
        turns.append({**turn, "tokens": len(own), "finish": "stop", "reward": step.reward})
    return Lived(ids, mask, bool(steps[-1].info["correct"]), True, "done" if steps[-1].done else "max_turns", turns)


def own_turns(ids: Sequence[int], mask: Sequence[bool]) -> list[str]:
    return "".join(map(chr, (one for one, own in zip(ids, mask, strict=True) if own))).split(chr(END))[:-1]


def check_reached(config: EnvironmentConfig, one: Reached, before: Lived) -> None:
    """That the row, played with its own turns, ends right, was read as it stands, and has the ids that were sampled."""
    columns = task_of(one.problem.columns).columns
    texts = own_turns(one.ids, one.mask)
    again = lived(config, columns, texts)
    assert again.right and again.end == "done" and len(again.turns) == len(texts)
    assert again.turns[-1]["reward"] == 1.0
    assert (again.ids, again.mask) == (one.ids, one.mask)
    assert before.ids[: len(one.ids)] == one.ids and before.mask[: len(one.mask)] == one.mask
    assert one.problem.prompt == [*map(ord, str(one.problem.columns["prompt"]))]


def hindsight(config: EnvironmentConfig, episodes: Sequence[tuple[Mapping[str, Any], Lived]]) -> list[Reached | None]:
    found = [(problem_of(config, columns, str(i)), Played(str(i), [one])) for i, (columns, one) in enumerate(episodes)]
    with Sessions.of(config) as sessions:
        made, figures = relabelled(sessions, found, begin(config))
    assert figures["relabelled"] == sum(map(len, made.values()))
    return [made[str(i)][0] if str(i) in made else None for i in range(len(episodes))]


@pytest.mark.parametrize("door", [True, False])
def test_a_walk_that_fails_reaches_the_goal_where_it_ended(door: bool) -> None:
    config = GridConfig(max_turns=8, size=4, door=door, question="{map}")
    draw, episodes = Random(0), list[tuple[dict[str, Any], Lived]]()
    for number in range(40):
        acts = draw.choices([*WAYS, "take", "x"], k=8)
        episodes.append((row(number), lived(config, row(number), acts)))
    made = hindsight(config, episodes)
    reached = [(one, before) for one, (_, before) in zip(made, episodes, strict=True) if one is not None]
    assert len(reached) > 15 and any(len(own_turns(one.ids, one.mask)) < 8 for one, _ in reached)
    assert all(one is None for one, (_, before) in zip(made, episodes, strict=True) if before.right)
    for one, before in reached:
        check_reached(config, one, before)


def test_a_chain_that_was_worked_out_wrongly_is_right_of_another_question() -> None:
    config = CalculatorConfig(max_turns=4, words=False, question="{question}")
    tables = [
        (["calc(3+4)", "calc(7*5)", "####35"], "3+4*5="),
        (["calc(3+4-2)", "####5"], "3+4-2="),
        (["calc(3+4*2)", "####11"], None),  # which calc reads otherwise than a chain
        (["calc(3+4)", "calc(8*5)", "####40"], None),
        (["calc(3+4)", "####7"], None),
        (["calc(3+4)", "calc(7*5)", "####36"], None),
        (["####36"], None),
    ]
    asked = {"prompt": "45-92*76=", "answer": "-3572"}
    made = hindsight(config, [(asked, lived(config, asked, texts)) for texts, _ in tables])
    assert [None if one is None else one.problem.columns["prompt"] for one in made] == [goal for _, goal in tables]
    assert made[0] is not None
    check_reached(config, made[0], lived(config, asked, tables[0][0]))


class Hidden(GuessConfig):
    """A goal that is not said."""

    def build(self) -> Any:
        return lambda: _Hidden(super(Hidden, self).build()())


class _Hidden:
    def __init__(self, inner: Environment) -> None:
        self.reset, self.step, self.close = inner.reset, inner.step, inner.close

    async def relabel(self, columns: Mapping[str, Any], infos: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        return {**columns, "secret": infos[-1]["answer"]}


def test_a_goal_that_is_not_in_what_is_said_first_is_refused() -> None:
    config = Hidden(max_turns=2)
    with pytest.raises(DataError, match="its goal is not in what it says first"):
        hindsight(config, [({"secret": 3}, lived(config, {"secret": 3}, ["1", "2"]))])


def test_of_episodes_the_different_whole_ones_are_kept_with_the_ids_that_were_sampled() -> None:
    config = GuessConfig(max_turns=4, question="?")
    columns = {"secret": 3}
    asked = problem_of(config, columns, "row")
    ways = [["1", "3"], ["9", "8", "7", "6"], ["1", "3"], ["3"], ["5", "3"], ["x", "0", "1", "2"]]
    episodes = [lived(config, columns, texts) for texts in ways]
    cut = episodes[4]
    episodes[4] = Lived(cut.ids, cut.mask, cut.right, False, cut.end, cut.turns)
    played = Played("row", episodes)
    assert Played.read(json.loads(json.dumps(played.line()))) == played
    assert [own_turns(*one.until(len(one.turns))) for one in episodes] == ways
    assert own_turns(*episodes[1].until(2)) == ["9", "8"]
    found = [(asked, played)]
    [one, other], report = examples_of(RejectionSampling(k=6, max_tokens=9, per_question=3), found, {}, Characters(), None)
    assert [own_turns(e.rows[0].completion.tolist(), e.rows[0].mask.tolist()) for e in (one, other)] == [ways[0], ways[3]]
    assert one.rows[0].prompt.tolist() == asked.prompt and report.rows == 2
    [first, second], _ = examples_of(PairSampling(k=6, max_tokens=9, per_question=3), found, {}, Characters(), None)
    sides = [[own_turns(side.completion.tolist(), side.mask.tolist()) for side in pair.rows] for pair in (first, second)]
    assert sides == [[ways[0], ways[1]], [ways[3], ways[5]]]
    with pytest.raises(DataError, match="of 1 rows with 6 episodes each, 4 of them right, nothing is kept"):
        examples_of(PairSampling(k=6, max_tokens=9), found, {}, Characters(), 2)


class Characters:
    """Makes ids of characters."""

    def prompts(self, records: Sequence[Record]) -> dict[str, Problem]:
        return {one.where: Problem([*map(ord, str(one.columns["prompt"]))], one.columns, one.where) for one in records}

    def unsigned(self, problems: Sequence[Problem]) -> dict[str, Mapping[str, Any]]:
        return {one.where: one.columns for one in problems}

    def cut(self, said: str) -> str:
        return said[:1]


def test_a_text_is_the_verdict_what_was_said_last_the_question_and_the_episode_and_all_of_it_is_learnt() -> None:
    config = GuessConfig(max_turns=2, question="?")
    asked = problem_of(config, {"secret": 3}, "row")
    episodes = [lived(config, {"secret": 3}, texts) for texts in (["1", "3"], ["9", "2"], ["1", "3"])]
    chosen = FeedbackSampling(k=3, max_tokens=9, right="+", wrong="-", feedback="({feedback})")
    made, _ = examples_of(chosen, [(asked, Played("row", episodes))], {}, Characters(), None)
    rows = [one.rows[0] for one in made]
    texts = ["".join(map(chr, one.completion.tolist())).replace(chr(END), ".") for one in rows]
    assert texts == ["+?1.>3.", "-(>)?9.<2.", "+?1.>3."]
    assert all(one.mask.tolist() == [False, *[True] * (len(one.completion) - 1)] and not len(one.prompt) for one in rows)


class AsTheRun(Characters):
    """Makes ids by the tokenizer."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def prompts(self, records: Sequence[Record]) -> dict[str, Problem]:
        return {one.where: one for one in self._reader.problems(records, needs=(), anything=True)[0]}


@pytest.mark.parametrize("right", [["12", "3+4"], ["12"], []])
def test_texts_of_one_turn_without_feedback_are_those_of_conditional_sft_on_all_answers(right: list[str]) -> None:
    """And where nothing fails, on the right ones."""
    _, tokenizer = load(SMALL, seed=0)
    end = tokenizer.eos_token_id
    reader, said = Reader(Encoding(chat_template=False), tokenizer, [end]), ["12", "3+4"]
    start = Start([{"role": "user", "content": "7+1="}])
    [asked], _ = reader.problems([Record("row", begun({"prompt": "7+1="}, 0, start))], needs=(), anything=True)
    episodes = list[Lived]()
    for text in said:
        ids = [*tokenizer.encode(text, add_special_tokens=False), end]
        turns = [{"text": text, "others": [], "info": {}, "tokens": len(ids), "finish": "stop"}]
        episodes.append(Lived(ids, [True] * len(ids), text in right, True, "done", turns))
    chosen = FeedbackSampling(k=2, max_tokens=9, right="+", wrong="-")
    made, _ = examples_of(chosen, [(asked, Played("row", episodes))], {}, AsTheRun(reader), None)
    control = ControlToken(column="reward", high="+", low="-", threshold=0.5, without=0)
    answers = [Record("row", {"prompt": "7+1=", "completion": text, "reward": float(text in right)}) for text in said]
    transforms = Transforms([control, AsText()], seed=0, train=lambda: answers)
    expected, _ = reader.examples(transforms.through(answers, "train"))
    for one, other in zip(made, expected, strict=True):
        [ours], [theirs] = one.rows, other.rows
        assert ours.completion.tolist() == theirs.completion.tolist() and not len(ours.prompt) and not len(theirs.prompt)
        assert ours.mask.tolist() == theirs.mask.tolist()


def test_it_goes_on_from_any_row_to_the_same_file_and_ends_where_the_environment_fails_too_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playing, "CHUNK", 2)
    _, tokenizer = load(SMALL, seed=0)
    ends, encoding = [tokenizer.eos_token_id], Encoding(chat_template=False)

    def answers(seed: int, number: int, turn: Turn) -> Step:
        if broken:
            raise OSError("no network")
        return said("1", done=number == 3, info={"correct": len(turn.text) % 2 == 0})

    broken = False
    config = ScriptedConfig(max_turns=3, says=answers)
    problems = [
        Problem([5, 6], begun({"number": n}, 0, Start([{"role": "user", "content": "Say."}])), f"row {n}") for n in range(5)
    ]

    def run(path: Path) -> list[Played]:
        one = player(config, RandomIds(20, ends), tokenizer, encoding, ends)
        try:
            return play(one, problems, 3, ExactMatch(), Sampling(max_tokens=30, seed=3), path)
        finally:
            one.close()

    whole = run(tmp_path / "whole.jsonl")
    assert {each.right for one in whole for each in one.episodes} == {True, False} and COLUMN in problems[0].columns
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    for at in (0, 3, 5):
        path = tmp_path / f"{at}.jsonl"
        path.write_text("".join(lines[:at]) + (lines[at][:20] if at < 5 else ""))
        assert run(path) == whole and path.read_text() == "".join(lines)
    broken = True
    with pytest.raises(RewardError, match="environment failed on 6 of the last 6"):
        run(tmp_path / "broken.jsonl")
    assert not (tmp_path / "broken.jsonl").read_text()
