"""The steps of `data.collect`, in order: each takes the rows that the one before it left or made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from posttrain.data.columns import DEMONSTRATIONS
from posttrain.data.rows import DataReport, Problem
from posttrain.data.sources import Record
from posttrain.errors import DataError
from posttrain.execution.prepare.collect.answer import Written
from posttrain.execution.prepare.collect.asking import as_generate, is_asked, kept_by, questions, unsolved_at
from posttrain.execution.prepare.collect.become import Asked, rows_of
from posttrain.execution.prepare.collect.keep import Keeper
from posttrain.execution.prepare.collect.writers import Loaded, Served, Writer, loaded, model_of, served
from posttrain.execution.prepare.collect.writing import Judge, write
from posttrain.execution.prepare.presample import worth
from posttrain.recipe import Recipe
from posttrain.rewards.make import Graders
from posttrain.rollout.make import sampling_of
from posttrain.settings.data.collect import Chosen, InstanceFilter, QuestionValue, key_of
from posttrain.settings.data.generate import PAIRED, START, Generate, OtherWriter
from posttrain.settings.model import TeacherConfig
from posttrain.telling import tell


@dataclass(frozen=True, slots=True)
class Collecting:
    """What all steps share.

    Args:
        recipe: of the run.
        model: as the stage starts.
        tokenizer: of the model.
        teachers: those that are loaded anyhow.
        graders: of answers.
        compute: the dtype of products.
        demonstrations: the algorithm learns from demonstrations of its questions.
        allow_remote: servers may be on other machines.
        folder: of the run.
    """

    recipe: Recipe
    model: Any
    tokenizer: Any
    teachers: dict[str, Any]
    graders: Graders
    compute: str
    demonstrations: bool
    allow_remote: bool
    folder: Path


@dataclass(frozen=True, slots=True)
class Done:
    """What a step has made: its rows, why others are none, and its figures."""

    name: str
    path: Path
    records: list[Record]
    report: DataReport
    figures: dict[str, float]


def done(number: int, chosen: Chosen, records: Sequence[Record], by: Collecting, room: dict[str, Any]) -> Done:
    """One step.

    Args:
        number: of the step, from 0.
        chosen: the step.
        records: that it works on.
        by: what all steps share.
        room: for answers, in the words of `Reader.problems`.

    Raises:
        DataError: nothing is kept, or rows lack what the step reads.
        SetupError: the writer cannot be had.
        EngineError: it failed; what was written until then is kept.
    """
    key, name = key_of(number, by.recipe.data.collect), "collect" if number == 0 else f"collect-{number + 1}"
    path = by.folder / ("collected.jsonl" if number == 0 else f"collected-{number + 1}.jsonl")
    step = as_generate(chosen, demonstrations=by.demonstrations)
    others = [record for record in records if not is_asked(step, record)]
    records = [record for record in records if is_asked(step, record)]
    if not records:
        return Done(name, path, others, DataReport(rows=len(others)), {**figures(step, []), "kept": 0.0, "seconds": 0.0})
    with ExitStack() as held:
        writer = _writer(number, step, by, key)
        held.callback(writer.close)
        problems, report = questions(step, by.recipe.data, records, writer.reads, room, key)
        judge = Judge(step.verdict, None if step.verdict == "none" else by.graders.of(by.recipe.data.judged))
        began = time.monotonic()
        written = write(writer, problems, step.n, judge, _settings(step, by.recipe, number), path)
        seconds = time.monotonic() - began
    made, of = _made(chosen, step, records, problems, written, report, demonstrations=by.demonstrations)
    if not of:
        nothing = (
            f"{key}: of {len(problems)} questions with {step.n} answers each nothing is kept ({_asked_for(chosen, step)})"
        )
        if not others and not made:
            raise DataError(f"{nothing}; {path} has the answers. Ask for more of them, ask for less, or take another writer.")
        tell("nothing-kept", f"{nothing}: {len(others) + len(made)} rows are left; {path} has the answers.")
    report.rows = len(made)
    return Done(name, path, [*others, *made], report, {**figures(step, written), "kept": float(of), "seconds": seconds})


def _settings(step: Generate, recipe: Recipe, number: int) -> dict[str, Any]:
    """What answers depend on beside the questions and the writer."""
    sampled = step.model_dump(mode="json", include={"temperature", "top_p", "top_k", "max_tokens", "stop", "engine", "n"})
    verdict = {"verdict": step.verdict, "rewards": [one.model_dump(mode="json") for one in recipe.rewards]}
    return {**sampled, "seed": recipe.seed, "step": number, **(verdict if step.verdict != "none" else {})}


def _asked_for(chosen: Chosen, step: Generate) -> str:
    if isinstance(chosen, (InstanceFilter, QuestionValue)):
        return f"{unsolved_at(chosen)} right"
    return f"keep: {kept_by(step)}" + (", and another side of the pair" if step.made in PAIRED else "")


def figures(step: Generate, written: Sequence[Written]) -> dict[str, float]:
    """How many questions were asked, what was written, and how much of it is right, where that is asked."""
    answers = [answer for one in written for answer in one.answers]
    said = {"questions": len(written), "answers": len(answers), "tokens": sum(answer.tokens for answer in answers)}
    judged = {
        "correct": sum(one.right for one in written) / max(1, len(answers)),
        "failed_grades": sum(one.failed for one in written) / max(1, len(answers)),
    }
    return {name: float(value) for name, value in {**said, **(judged if step.verdict != "none" else {})}.items()}


def _made(
    chosen: Chosen,
    step: Generate,
    records: Sequence[Record],
    problems: Sequence[Problem],
    written: Sequence[Written],
    report: DataReport,
    *,
    demonstrations: bool,
) -> tuple[list[Record], int]:
    """The rows that come out, and how many questions gave something."""
    of = {record.where: record for record in records}
    keeper = Keeper(step, [str(problem.columns.get("prompt")) for problem in problems])
    made, gave = list[Record](), 0
    for problem, one in zip(problems, written, strict=True):
        asked = Asked(of[problem.where], problem.columns)
        if isinstance(chosen, (InstanceFilter, QuestionValue)):
            solved = one.right >= unsolved_at(chosen)
            rows = [_counted(chosen, asked.record, one)] if solved else []
        else:
            kept = keeper.kept(one)
            pairs = step.made in PAIRED and step.other_side == "own"
            rows = rows_of(step, asked, one, kept, keeper.others(one) if pairs else [])
            solved = bool(kept) and (step.made not in PAIRED or any(row is not asked.record for row in rows))
            if not isinstance(chosen, Generate) and demonstrations and not rows:
                rows = [replace(asked.record, columns=_without_demonstration(asked.columns))]
        gave += solved
        made += rows
        if not solved:
            report.note(problem.where, _why(chosen, step, one), "unsolved" if chosen is not step else "nothing_kept")
    return made, gave


def _why(chosen: Chosen, step: Generate, one: Written) -> str:
    right = f", {one.right} of them right" if step.verdict != "none" else ""
    return f"of {len(one.answers)} answers{right}, none is kept" if chosen is step else f"{one.right} of {step.n} were right"


def _counted(chosen: Chosen, record: Record, one: Written) -> Record:
    if not isinstance(chosen, QuestionValue):
        return record
    return replace(record, columns={**record.columns, "value": worth(one.right, chosen.k - one.failed, chosen.beta)})


def _without_demonstration(columns: Any) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if name not in DEMONSTRATIONS}


def _writer(number: int, step: Generate, by: Collecting, key: str) -> Writer:
    sampling = replace(sampling_of(step, by.recipe.seed), step=number)
    data, who = by.recipe.data, f"{key}.writer"
    own = step.prompt_template is None
    encoding = data if own else data.model_copy(update={"prompt_template": step.prompt_template})
    joins = own and not data.chat_template
    options: dict[str, Any] = {"compute": by.compute, "allow_remote": by.allow_remote, "joins": joins}
    if step.writer == START:
        return loaded(by.model, by.tokenizer, step, sampling, **options)
    if isinstance(step.writer, OtherWriter):
        named = TeacherConfig(name=step.writer.name, url=step.writer.url)
    else:
        named = by.recipe.model.teachers[step.writer]
        held = by.teachers.get(step.writer)
        if isinstance(held, torch.nn.Module):
            return loaded(held, by.tokenizer, step, sampling, **options)
    if named.url is not None:
        reads = Loaded.reads_of(by.model, by.tokenizer)
        return Served(served(who, named.url, allow_remote=by.allow_remote), reads, encoding, sampling)
    return loaded(*model_of(who, named), step, sampling, **options)
