"""What becomes of episodes: examples whose ids are those that were sampled, and what others said has no loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from posttrain.data.rows import BadRow, DataReport, Example, Problem, Row
from posttrain.data.sources import Record
from posttrain.data.transforms.control_token import before
from posttrain.errors import DataError
from posttrain.execution.prepare.collect.episodes.line import Lived, Played
from posttrain.execution.prepare.collect.episodes.relabel import Reached
from posttrain.settings.data.collect import FeedbackSampling, InstanceFilter, PairSampling, RejectionSampling

Found = tuple[Problem, Played]


class Encodes(Protocol):
    """Makes tokens as the run does."""

    def prompts(self, records: Sequence[Record]) -> Mapping[str, Problem]:
        """Rows whose prompts are given as questions, by their places; those that are too long are not there."""
        ...

    def unsigned(self, problems: Sequence[Problem]) -> Mapping[str, Mapping[str, Any]]:
        """Columns of rows as the environment begins with them, by their places, without what the recipe puts before that."""
        ...

    def cut(self, said: str) -> str:
        """What an environment says, without its middle where it is over observation_tokens."""
        ...


def examples_of(
    chosen: RejectionSampling | PairSampling | FeedbackSampling,
    found: Sequence[Found],
    reached: Mapping[str, Sequence[Reached]],
    by: Encodes,
    longest: int | None,
) -> tuple[list[Example], DataReport]:
    """What is trained on, in the order of the rows, and which rows gave nothing.

    Args:
        chosen: what is made.
        found: the rows that were played, with their episodes.
        reached: by the places of rows their failed episodes, with the goals that these did reach.
        by: makes tokens.
        longest: tokens that a row may have, if there is a limit.

    Raises:
        DataError: nothing is left.
    """
    report, made = DataReport(), list[Example]()
    if isinstance(chosen, FeedbackSampling):
        of: Mapping[str, list[Example]] = _texts(chosen, found, by)
    elif isinstance(chosen, PairSampling):
        of = {problem.where: _pairs(problem, one, chosen.per_question) for problem, one in found}
    else:
        of = {
            problem.where: [*_right(problem, one, chosen), *_reached(problem, reached.get(one.where, ()), chosen)]
            for problem, one in found
        }
    for problem, one in found:
        rows = of[problem.where]
        short = [example for example in rows if longest is None or max(len(row) for row in example.rows) <= longest]
        if len(short) < len(rows):
            report.note(problem.where, f"{len(rows) - len(short)} of its rows are over {longest} tokens", "long_completion")
        if not rows:
            said = f"{one.right} of {chosen.k} episodes were right, and none is kept"
            report.note(problem.where, said, "unsolved" if isinstance(chosen, RejectionSampling) else "nothing_kept")
        made += short
    if not made:
        right = sum(one.right for _, one in found)
        raise DataError(
            f"data.collect: of {len(found)} rows with {chosen.k} episodes each, {right} of them right, nothing is kept. Play "
            "more of them, ask for less, or begin from another model."
        )
    report.rows = len(made)
    return made, report


def questions_of(chosen: InstanceFilter, data: Sequence[Any], found: Sequence[Found]) -> tuple[list[Any], DataReport]:
    """The rows that stay, and which do not.

    Raises:
        DataError: none does.
    """
    report, solved = DataReport(), {one.where for _, one in found if one.right >= chosen.right}
    for _, one in found:
        if one.where not in solved:
            report.note(one.where, f"{one.right} of {chosen.k} episodes were right", "unsolved")
    kept = [row for row in data if row.where in solved]
    if not kept:
        raise DataError(
            f"data.collect: of {len(found)} rows not one had {chosen.right} right of {chosen.k} episodes. Play more of them, "
            "or begin from another model."
        )
    report.rows = len(kept)
    return kept, report


def _example(problem: Problem, *rows: Row) -> Example:
    return Example(rows, problem.where, source=problem.source, ordered_by=problem.ordered_by)


def _row(prompt: Sequence[int], ids: Sequence[int], mask: Sequence[bool]) -> Row:
    return Row(np.array(prompt, np.int32), np.array(ids, np.int32), np.array(mask, np.bool_))


def _right(problem: Problem, one: Played, chosen: RejectionSampling) -> list[Example]:
    kept = one.chosen(right=True)[: chosen.per_question]
    return [_example(problem, _row(problem.prompt, each.ids, each.mask)) for each in kept]


def _reached(problem: Problem, reached: Sequence[Reached], chosen: RejectionSampling) -> list[Example]:
    known = {(*one.problem.prompt, -1, *one.ids): one for one in reversed(reached)}
    kept = [*reversed(known.values())][: chosen.per_question]
    return [_example(replace(problem, where=one.problem.where), _row(one.problem.prompt, one.ids, one.mask)) for one in kept]


def _pairs(problem: Problem, one: Played, most: int) -> list[Example]:
    sides = zip(one.chosen(right=True), one.chosen(right=False), strict=False)
    rows = [tuple(_row(problem.prompt, each.ids, each.mask) for each in pair) for pair in sides]
    return [_example(problem, *pair) for pair in rows[:most]]


def _texts(chosen: FeedbackSampling, found: Sequence[Found], by: Encodes) -> dict[str, list[Example]]:
    """Of every episode one, all of which is learnt but for its first token, which nothing comes before."""
    asked, of = list[Record](), list[tuple[Problem, str, Lived]]()
    begun = by.unsigned([problem for problem, _ in found])
    for problem, one in found:
        whole = [each for each in one.episodes if each.whole and each.right is not None and each.says_something]
        for number, each in enumerate(whole, 1):
            where = f"{problem.where}#{number}"
            columns = {name: value for name, value in begun[problem.where].items() if name != "messages"}
            try:
                asked.append(Record(where, before(columns, _signed(chosen, each, by)), made=True))
            except BadRow as bad:
                raise DataError(f"data.collect.feedback: {where}: {bad}.") from None
            of.append((problem, where, each))
    prompts = by.prompts(asked) if asked else {}
    made: dict[str, list[Example]] = {problem.where: [] for problem, _ in found}
    for problem, where, each in of:
        if where in prompts:
            ids = [*prompts[where].prompt, *each.ids]
            row = _row((), ids, [False, *[True] * (len(ids) - 1)])
            made[problem.where].append(_example(replace(problem, where=where), row))
    return made


def _signed(chosen: FeedbackSampling, one: Lived, by: Encodes) -> str:
    """The sign of an episode, and what it was told last, where it is wrong."""
    if one.right:
        return chosen.right
    said = by.cut(one.last_words)
    return chosen.wrong + (chosen.feedback.replace("{feedback}", said) if said else "")
