"""Asking a writer and judging what it says, question by question, in a file that an interrupted run goes on with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.data.answers import prompt_text
from posttrain.data.rows import Problem, digest
from posttrain.distributed import ranks
from posttrain.execution.prepare.collect.answer import Answer, Said, Written
from posttrain.execution.prepare.collect.writers import Writer
from posttrain.rewards.base import Group
from posttrain.rewards.grading import Grader, Verdict, graded
from posttrain.rewards.kinds.majority_vote import MajorityVote
from posttrain.telling import tell
from posttrain.train.watch.records import JsonLines

CHUNK = 256  # questions that are asked, judged and written at a time
CHANGED = {"data": "for other questions", "writer": "by another model", "settings": "with other settings"}
"""The digests of a line, and what is said where one is another than before."""


def write(
    writer: Writer, problems: Sequence[Problem], n: int, judge: Judge, settings: Mapping[str, Any], path: Path
) -> list[Written]:
    """Has every question answered, in order, each rank its share. A line of `path` for each, with digests of all questions,
    of the writer and of the settings; those that are there already are not asked again, if these are the same.

    Args:
        writer: answers.
        problems: the questions.
        n: answers to each.
        judge: says which are right.
        settings: what else the answers depend on.
        path: the file.

    Raises:
        EngineError: the writer failed; what was written until then is kept.
    """
    file = JsonLines(path)
    identity = ranks.broadcast(writer.identity() if ranks.is_main() else {}, "the writer")
    known = {"data": digest(problems), "writer": _digest(identity), "settings": _digest(settings)}
    done = ranks.broadcast(_of_these(file, known) if ranks.is_main() else [], "what was written before")
    if ranks.is_main():
        file.rewrite(_line(one, known) for one in done)
    while (first := len(done)) < len(problems):
        chunk = range(first, min((first // CHUNK + 1) * CHUNK, len(problems)))
        mine = ranks.my_share(chunk)
        asked = [(i, problems[i]) for i in mine]
        share = [judge(problems[i], said) for i, said in zip(mine, writer.write(asked, n), strict=True)]
        fresh = ranks.all_shares(share, f"what is written for questions {first + 1} and after")
        for one in fresh if ranks.is_main() else ():
            file.append(_line(one, known))
        done += fresh
    return done


def _line(one: Written, known: Mapping[str, str]) -> dict[str, Any]:
    return {**dataclasses.asdict(one), **known}


def _of_these(file: JsonLines, known: Mapping[str, str]) -> list[Written]:
    """What a file has with these digests; of others nothing is used."""
    lines = file.read()
    differs = [said for name, said in CHANGED.items() if any(line.get(name) != known[name] for line in lines)]
    if differs:
        tell("collected-anew", f"{file.path} was written {' and '.join(differs)} than now: all are asked anew.")
        return []
    return [Written(line["where"], [Answer(**answer) for answer in line["answers"]], line.get("majority")) for line in lines]


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


class Judge:
    """Says which answers to a question are right.

    Args:
        verdict: by a grader and the question's answer, by the majority, or not at all.
        grader: reads answers; None where there is no verdict.
    """

    def __init__(self, verdict: str, grader: Grader | None) -> None:
        self._verdict, self._grader = verdict, grader

    def __call__(self, problem: Problem, said: Sequence[Said]) -> Written:
        """The answers with what is said of them; LMSI's majority (arXiv:2210.11610), of answers that can be read and came to
        their end, unless two are as frequent.
        """
        if self._grader is None:
            return Written(problem.where, [Answer(one.text, one.tokens, one.finished) for one in said])
        if self._verdict == "majority":
            return self._by_majority(problem, said, self._grader)
        prompt, reference = prompt_text(problem.columns["prompt"]), problem.columns["answer"]
        made = list[Answer]()
        for one in said:
            verdict = graded(self._grader, one.begun + one.text, prompt, reference, finished=one.finished).verdict
            fault = verdict.value if verdict.failed else None
            right = None if verdict.failed else verdict is Verdict.RIGHT
            made.append(Answer(one.text, one.tokens, one.finished, right, fault))
        return Written(problem.where, made)

    def _by_majority(self, problem: Problem, said: Sequence[Said], grader: Grader) -> Written:
        group = Group(
            completions=[one.begun + one.text for one in said],
            tokens=[()] * len(said),
            finished=[one.finished for one in said],
            columns=problem.columns,
        )
        judged = MajorityVote(grader).judge(group)
        made = [
            Answer(one.text, one.tokens, one.finished, found.right, found.fault)
            for one, found in zip(said, judged, strict=True)
        ]
        return Written(problem.where, made, next((found.answer for found in judged if found.right), None))
