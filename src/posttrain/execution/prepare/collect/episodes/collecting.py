"""`data.collect` where the recipe has an environment: the start model's episodes, and what is trained on of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.data.encoding.glue import Glue, has_tools
from posttrain.data.overlap import Overlaps
from posttrain.data.reader import Reader
from posttrain.data.rows import Problem
from posttrain.data.sources import Record
from posttrain.environments.sessions import Sessions
from posttrain.environments.task import task_of
from posttrain.errors import DataError
from posttrain.execution.numbers import computed_in
from posttrain.execution.prepare.collect.asking import room_for
from posttrain.execution.prepare.collect.episodes.become import Found, examples_of, questions_of
from posttrain.execution.prepare.collect.episodes.line import Played
from posttrain.execution.prepare.collect.episodes.playing import play
from posttrain.execution.prepare.collect.episodes.relabel import Reached, relabelled
from posttrain.execution.prepare.data.beginnings import Beginnings
from posttrain.execution.prepare.passage import Passage
from posttrain.execution.prepare.preparation import Prepared
from posttrain.model.load import context_of
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.model.scoring import computing
from posttrain.rollout.make import make_engine, sampling_of
from posttrain.settings.data.collect import Chosen, InstanceFilter, QuestionValue, Relabelling, key_of
from posttrain.settings.data.generate import Generate
from posttrain.settings.doors.permissions import Permissions
from posttrain.telling import tell
from posttrain.train.collect.episodes.make import make_player


def played(prepared: Prepared, path: Path, permissions: Permissions) -> Prepared:
    """The same with what is trained on of the start model's episodes; `path` has them all, a line for each row.

    Raises:
        SetupError: the environment does not start, or the chat template cannot be appended to.
        EngineError: the engine failed; what was played until then is kept.
        RewardError: the environment fails more often than it may.
        DataError: nothing is left to be trained on.
    """
    recipe, sets = prepared.recipe, prepared.sets
    [chosen] = recipe.data.steps
    assert recipe.environment is not None and not isinstance(chosen, (Generate, QuestionValue))
    compute = computed_in(recipe)
    tools = next((one.columns["tools"] for one in sets.candidates if one.columns.get("tools")), None)
    with ExitStack() as held:
        place = {"allow_remote": permissions.remote_engine}
        engine = make_engine(chosen, prepared.model, prepared.tokenizer, compute=compute, **place)
        held.callback(engine.close)
        served = chosen.vllm.max_model_len if chosen.engine == "vllm" else None
        player = make_player(
            recipe.environment, engine, prepared.model, prepared.tokenizer, recipe.data, served=served, tools=tools
        )
        held.callback(player.close)
        grader, sampling = prepared.graders.of(recipe.data.judged), sampling_of(chosen, recipe.seed)
        with computing(prepared.model, bf16=compute == "bfloat16"):
            engine.sync(prepared.model, 0)
            lived = play(player, sets.candidates, chosen.k, grader, sampling, path)
    found = [*zip(sets.candidates, lived, strict=True)]
    figures = _figures(lived)
    if isinstance(chosen, InstanceFilter):
        train, report = questions_of(chosen, sets.train, found)
    else:
        reached, more = _hindsight(prepared, chosen, found)
        figures |= {f"collect/{name}": number for name, number in more.items()}
        limits = [limit for limit in (recipe.data.max_tokens, context_of(prepared.model)) if limit is not None]
        train, report = examples_of(chosen, found, reached, _Encoding(prepared, chosen), min(limits, default=None))
    sets = replace(sets, train=train, reports={**sets.reports, "collect": report})
    return replace(prepared.with_sets(sets), collected=figures)


def _figures(lived: Sequence[Played]) -> dict[str, float]:
    """How many rows were played, how often episodes are right, how often nobody knows, and their turns."""
    episodes = [one for each in lived for one in each.episodes]
    return {
        "collect/questions": float(len(lived)),
        "collect/correct": sum(one.right is True for one in episodes) / len(episodes),
        "collect/failed_grades": sum(one.right is None for one in episodes) / len(episodes),
        "collect/turns": float(np.mean([len(one.turns) for one in episodes])),
    }


def _hindsight(
    prepared: Prepared, chosen: Chosen, found: Sequence[Found]
) -> tuple[dict[str, list[Reached]], dict[str, float]]:
    """Goals that failed episodes did reach, but none that an evaluation asks for."""
    if not isinstance(chosen, Relabelling):
        return {}, {}
    assert prepared.recipe.environment is not None
    with Sessions.of(prepared.recipe.environment) as sessions:
        reached, figures = relabelled(sessions, found, _Encoding(prepared, chosen).begun)
    evaluated = {_begins(one) for asked in prepared.sets.problems.values() for one in asked}
    kept = {where: [one for one in several if _begins(one.problem) not in evaluated] for where, several in reached.items()}
    figures["relabelled"] = float(sum(map(len, kept.values())))
    return kept, figures


def _begins(problem: Problem) -> str:
    """What an environment says first."""
    return json.dumps(task_of(problem.columns).messages, sort_keys=True)


class _Encoding:
    """Makes prompts of rows, as those of the run's own are made."""

    def __init__(self, prepared: Prepared, chosen: Any) -> None:
        recipe, model, tokenizer = prepared.recipe, prepared.model, prepared.tokenizer
        assert recipe.environment is not None
        data = recipe.data.model_copy(update={"on_long_prompt": "skip", "on_bad_row": "skip"})
        self._reader = Reader(data, tokenizer, eos_ids(model, tokenizer), context_of(model))
        self._begin = Beginnings(recipe.environment, recipe.seed, in_words=not has_tools(tokenizer, recipe.data))
        self._passage = Passage(recipe, Overlaps({}, words=recipe.data.decontaminate.n, dropping=[]), begin=self._begin)
        key = f"{key_of(0, recipe.data.collect)}.max_tokens"
        self._room = room_for(model, chosen, chosen.max_tokens, key)
        self._glue = Glue(tokenizer, recipe.data, eos_ids(model, tokenizer), limit=recipe.environment.observation_tokens)

    def unsigned(self, problems: Sequence[Problem]) -> Mapping[str, Mapping[str, Any]]:
        """See `Encodes`."""
        tasks = [Record(one.where, {**task_of(one.columns).columns}) for one in problems]
        begun = {one.where: one.columns for one in self._begin.of(tasks)}
        return {one.where: begun.get(one.where, one.columns) for one in problems}

    def cut(self, said: str) -> str:
        """See `Encodes`."""
        return self._glue.cut(said)

    def prompts(self, records: Sequence[Record]) -> Mapping[str, Problem]:
        """See `Encodes`."""
        return self._read(records, room=1)

    def begun(self, records: Sequence[Record]) -> Mapping[str, Problem]:
        """Of rows that the environment begins with."""
        return self._read([*self._passage.begun(records)], **self._room)

    def _read(self, records: Sequence[Record], **room: Any) -> Mapping[str, Problem]:
        problems = list[Problem]()
        try:
            problems, report = self._reader.problems(records, **room, needs=(), anything=True, label="data.collect")
            first = report.notes[0] if len(problems) < len(records) else ()
        except DataError as error:
            first = (str(error),)
        if first:
            number = len(records) - len(problems)
            tell(
                "collected-left-out", f"data.collect: {number} rows that it makes are left out; the first: {', '.join(first)}"
            )
        return {one.where: one for one in problems}
