"""Failed episodes as right ones of the goal that they did reach: hindsight (arXiv:2202.01771)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.data.rows import Problem
from posttrain.data.sources import Record
from posttrain.environments.base import Environment, Start, Step
from posttrain.environments.sessions import Failure, Sessions
from posttrain.environments.task import Task, task_of
from posttrain.errors import DataError, SetupError
from posttrain.execution.prepare.collect.episodes.line import Lived, Played
from posttrain.telling import tell

Begin = Callable[[Sequence[Record]], Mapping[str, Problem]]
"""Rows of an environment → the questions that it begins them with, by their places; those that do not fit are not there."""


@dataclass(frozen=True, slots=True)
class Reached:
    """The row of a goal, and the episode up to the turn that reached it: the policy's own ids, as they were sampled."""

    problem: Problem
    ids: Sequence[int]
    mask: Sequence[bool]


@dataclass(slots=True)
class _Again:
    """A failed episode that is played again."""

    place: str
    where: str
    lived: Lived
    begun: Task
    environment: Environment | None = None
    turns: int = 0
    right: bool = False
    over: bool = False


def relabelled(
    sessions: Sessions, found: Sequence[tuple[Problem, Played]], begin: Begin
) -> tuple[dict[str, list[Reached]], dict[str, float]]:
    """By the places of rows their failed episodes with the goals that these did reach; and how many there were.

    A goal counts that the same turns reach, when the environment begins with it and hears them again: it must say on the way
    what it said before, for the policy had read that.

    Raises:
        SetupError: the environment does not say what was reached.
        DataError: it does not say the goal in what it says first.
    """
    failed = [
        (problem, one, f"{problem.where}~{number}")
        for problem, played in found
        for number, one in enumerate(played.episodes, 1)
        if one.right is False and one.turns
    ]
    tasks = {problem.where: task_of(problem.columns) for problem, _ in found}
    goals = sessions.relabel([(tasks[problem.where].columns, one.infos) for problem, one, _ in failed])
    faults = [goal.reason for goal in goals if isinstance(goal, Failure)]
    if faults and len(faults) == len(goals):
        raise SetupError(f"data.collect.relabel: the environment does not say what episodes did reach: {faults[0]}.")
    if faults:
        number = f"of {len(faults)} of {len(goals)} failed episodes"
        tell("relabel-failed", f"data.collect.relabel: {number} the environment does not say what they reached: {faults[0]}")
    wanted = dict[str, Any]()
    for (_, _, where), goal in zip(failed, goals, strict=True):
        if goal is not None and not isinstance(goal, Failure):
            wanted[where] = dict(goal)
    begun = begin([Record(where, columns, made=True) for where, columns in wanted.items()]) if wanted else {}
    again = list[_Again]()
    for problem, one, where in failed:
        if where not in begun:
            continue
        task = task_of(begun[where].columns)
        if (task.messages, task.tools) == (tasks[problem.where].messages, tasks[problem.where].tools):
            raise DataError(
                f"data.collect.relabel: {where}: with the goal that the episode did reach the environment begins as it did "
                "before: its goal is not in what it says first, and nothing could be learnt of it: take rejection_sampling."
            )
        again.append(_Again(problem.where, where, one, task))
    _play_again(sessions, again)
    made: dict[str, list[Reached]] = {}
    for one in again:
        if one.right and (one.lived.whole or one.turns < len(one.lived.turns)):
            made.setdefault(one.place, []).append(Reached(begun[one.where], *one.lived.until(one.turns)))
    kept = sum(map(len, made.values()))
    return made, {"failed": float(len(failed)), "reached": float(len(wanted)), "relabelled": float(kept)}


def _play_again(sessions: Sessions, again: Sequence[_Again]) -> None:
    """The turns of each, until one is the last, or something else is said than before."""
    begun = sessions.reset([(one.begun.columns, one.begun.seed) for one in again])
    for one, (environment, start) in zip(again, begun, strict=True):
        one.environment = environment
        one.over = environment is None or not isinstance(start, Start) or not one.begun.began_so(start)
    while living := [one for one in again if not one.over]:
        turns = [(one.environment, one.lived.said[one.turns]) for one in living if one.environment is not None]
        for one, step in zip(living, sessions.step(turns), strict=True):
            _take(one, step)
    sessions.end([one.environment for one in again if one.environment is not None])


def _take(one: _Again, step: Step | Failure) -> None:
    if isinstance(step, Failure):
        one.over = True
        return
    said = one.lived.turns[one.turns]["others"]
    one.turns += 1
    if step.done:
        one.over, one.right = True, bool(step.info.get("correct"))
    elif [dict(message) for message in step.messages] != list(said) or one.turns == len(one.lived.turns):
        one.over = True
