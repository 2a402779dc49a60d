"""Sampling before training, once, from the start model: which questions it can answer, and its right answers as data.

rif keeps the questions of which enough answers are right (rollout-based instance filtering, arXiv:2507.05386).
rejection_sampling makes demonstrations of right answers (STaR, arXiv:2203.14465; RAFT, arXiv:2304.06767).
value says what a question is worth to the best policy near the start model (A*-PO, arXiv:2505.20686).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.data.answers import AnswerText, prompt_text
from posttrain.data.rows import DataReport, Example, Problem, Row, digest
from posttrain.distributed import ranks
from posttrain.errors import DataError
from posttrain.estimator.batch import Request
from posttrain.rewards.grading import Grader, Verdict, graded
from posttrain.rollout.engine import Completion, RolloutEngine, Sampling
from posttrain.settings.data.collect import CollectConfig, InstanceFilter, QuestionValue, RejectionSampling
from posttrain.telling import tell
from posttrain.train.watch.records import JsonLines

CHUNK = 256  # questions that are sampled, graded and written at a time


@dataclass(frozen=True, slots=True)
class Sampled:
    """The answers to one question: how many were right, how many could not be graded, and the different right ones that came
    to their end.
    """

    where: str
    right: int
    failed: int
    answers: list[list[int]]


def presample(
    config: CollectConfig,
    problems: Sequence[Problem],
    engine: RolloutEngine,
    grader: Grader,
    tokenizer: Any,
    sampling: Sampling,
    path: Path,
) -> list[Sampled]:
    """Samples k answers to every question, in order, and grades them, each rank its share. A line of `path` for each, with a
    digest of all questions; those that are there already are not sampled again, if they are of these questions.
    """
    file, k, data, text = JsonLines(path), config.counted.k, digest(problems), AnswerText(tokenizer)
    done = ranks.broadcast(_of_these(file, data) if ranks.is_main() else [], "what was sampled before")
    if ranks.is_main():
        file.rewrite(_line(one, data) for one in done)
    for first in range(len(done), len(problems), CHUNK):
        mine = ranks.my_share(range(first, min(first + CHUNK, len(problems))))
        requests = [Request(problems[i].prompt, n=k, question=i) for i in mine]
        answered = zip(mine, engine.generate(requests, sampling), strict=True)
        share = [_sampled_of(problems[i], completions, grader, text) for i, completions in answered]
        fresh = ranks.all_shares(share, f"the answers to questions {first + 1} and after")
        for one in fresh if ranks.is_main() else ():
            file.append(_line(one, data))
        done += fresh
    return done


def _line(one: Sampled, data: str) -> dict[str, Any]:
    return {**dataclasses.asdict(one), "data": data}


def _of_these(file: JsonLines, data: str) -> list[Sampled]:
    """What a file has of the questions with this digest; of others nothing is used."""
    lines = file.read()
    if any(line.pop("data", None) != data for line in lines):
        tell("collected-anew", f"{file.path} was sampled for other questions than the data are now: all are sampled anew.")
        return []
    return [Sampled(**line) for line in lines]


def _sampled_of(problem: Problem, completions: Sequence[Completion], grader: Grader, text: AnswerText) -> Sampled:
    prompt, reference = prompt_text(problem.columns["prompt"]), problem.columns["answer"]
    verdicts = [
        graded(
            grader,
            text.of(problem.prompt, problem.columns, one.tokens),
            prompt,
            reference,
            finished=one.finish == "stop",
        ).verdict
        for one in completions
    ]
    right = [one for one, verdict in zip(completions, verdicts, strict=True) if verdict is Verdict.RIGHT]
    ended = dict.fromkeys(tuple(completion.tokens.tolist()) for completion in right if completion.finish == "stop")
    failed = sum(verdict.failed for verdict in verdicts)
    return Sampled(problem.where, len(right), failed, [list(tokens) for tokens in ended])


def filtered(
    config: CollectConfig, data: Sequence[Example] | Sequence[Problem], sampled: Sequence[Sampled], *, demonstrations: bool
) -> tuple[list[Example] | list[Problem], DataReport]:
    """The data set that is trained on, and what was left out of it.

    Args:
        config: what is kept, or made.
        data: examples, or questions; for rejection sampling the questions that were sampled.
        sampled: the answers to each question.
        demonstrations: right answers become demonstrations of their questions, not examples of their own.

    Raises:
        DataError: nothing is left.
    """
    chosen, report = config.counted, DataReport()
    found = {one.where: one for one in sampled}
    right = chosen.right if isinstance(chosen, InstanceFilter) else 1
    for one in sampled:
        if one.right < right or (isinstance(chosen, RejectionSampling) and not one.answers):
            report.note(one.where, f"{one.right} of {chosen.k} sampled answers were right", "unsolved")
    unsolved = {where for _, where, _ in report.notes}
    solved = [row for row in data if row.where in found and row.where not in unsolved]
    if not solved:
        raise DataError(
            f"data.collect: of {len(sampled)} questions not one had {right} right of {chosen.k} "
            "sampled answers. Sample more, or begin from another model."
        )
    kept: Any = solved
    if isinstance(chosen, RejectionSampling):
        kept = [
            made
            for row in (data if demonstrations else solved)
            for made in _of(row, found.get(row.where), chosen, demonstrations)
        ]
    if isinstance(chosen, QuestionValue):
        kept = [_worth(row, found[row.where], chosen) for row in solved]
    report.rows = len(kept)
    return kept, report


def _worth(row: Example | Problem, sampled: Sampled, chosen: QuestionValue) -> Problem:
    """The question with its value; answers that could not be graded are in no mean."""
    assert isinstance(row, Problem)
    value = worth(sampled.right, chosen.k - sampled.failed, chosen.beta)
    return dataclasses.replace(row, columns={**row.columns, "value": value})


def worth(right: int, graded: int, beta: float) -> float:
    """Of a question: beta · log of the mean of exp(R / beta), R = 1 for right answers and else 0."""
    share = right / graded
    return 1 + beta * math.log(share + (1 - share) * math.exp(-1 / beta))


def _of(
    row: Example | Problem, sampled: Sampled | None, chosen: RejectionSampling, demonstrations: bool
) -> list[Example] | list[Problem]:
    """A question's right answers, as examples; or the question with one of them for its demonstration."""
    assert isinstance(row, Problem)
    answers = sampled.answers[: chosen.per_question] if sampled is not None else []
    if demonstrations:
        return [dataclasses.replace(row, demonstration=tuple(answers[0]) if answers else None, cuts=())]
    prompt = np.array(row.prompt, np.int32)
    taught: Any = {} if row.teacher_prompt is None else {"teacher_prompt": np.asarray(row.teacher_prompt, np.int32)}
    return [
        Example(
            (Row(prompt, np.array(answer, np.int32), np.ones(len(answer), np.bool_), **taught),),
            row.where,
            source=row.source,
            ordered_by=row.ordered_by,
        )
        for answer in answers
    ]


def summary(sampled: Sequence[Sampled], k: int) -> dict[str, float]:
    """How often the start model was right, and how often nobody knows."""
    answers = k * len(sampled)
    return {
        "collect/questions": float(len(sampled)),
        "collect/correct": sum(one.right for one in sampled) / answers,
        "collect/failed_grades": sum(one.failed for one in sampled) / answers,
    }
