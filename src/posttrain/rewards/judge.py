"""Every reward on one group, and what keeps a reward from hurting the run: its exceptions, its values, its time."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from posttrain.rewards.base import Group, Judgement, Lazily, Reward, Weighted
from posttrain.rewards.rewarded import Rewarded
from posttrain.rewards.values import MAX_SCORE, Refused, as_text, listed, number, text


class Judges:
    """Several rewards on one group after another.

    Args:
        rewards: with their weights and deadlines.
    """

    def __init__(self, rewards: Sequence[Weighted]) -> None:
        self._rewards = rewards
        self._stuck: dict[str, threading.Thread] = {}

    def judge(self, group: Group) -> Rewarded:
        """The weighted sum of all rewards, row by row. A reward whose last call still hangs is not called again."""
        judged: list[list[Judgement]] = []
        for entry in self._rewards:
            name, rows = entry.reward.name, len(group.completions)
            before = self._stuck.get(name)
            if before is not None and before.is_alive():
                judged.append([Judgement.failed("timeout")] * rows)
                continue
            [judgements], self._stuck[name] = guarded(entry.reward, [group], entry.deadline)
            judged.append(judgements)
        return summed(self._rewards, judged, len(group.completions))


def summed(rewards: Sequence[Weighted], judged: Sequence[Sequence[Judgement]], rows: int) -> Rewarded:
    """The weighted sum of what each reward said of each of some rows; without rewards all are graded 0."""
    total, graded = torch.zeros(rows, dtype=torch.float64), torch.ones(rows, dtype=torch.bool)
    by_name: dict[str, Tensor] = {}
    scored: dict[str, Tensor] = {}
    faults: dict[str, tuple[str | None, ...]] = {}
    answers: list[str | None] = [None] * rows
    correct, known = None, torch.zeros(rows, dtype=torch.bool)
    for entry, judgements in zip(rewards, judged, strict=True):
        said = torch.tensor([one.score is not None for one in judgements], dtype=torch.bool)
        scores = torch.tensor([one.score or 0.0 for one in judgements], dtype=total.dtype)
        by_name[entry.reward.name], scored[entry.reward.name] = scores, said
        faults[entry.reward.name] = tuple(one.fault for one in judgements)
        if entry.weight:
            total, graded = total + entry.weight * scores, graded & said
        if entry.verdict:
            correct = torch.tensor([bool(one.right) for one in judgements], dtype=torch.bool)
            known = torch.tensor([one.right is not None for one in judgements], dtype=torch.bool)
        read = [one.answer for one in judgements]
        if any(read) and (entry.verdict or not any(answers)):
            answers = read
    return Rewarded(total, by_name, scored, graded, correct, known, faults, tuple(answers))


def guarded(reward: Reward, groups: Sequence[Group], deadline: float) -> tuple[list[list[Judgement]], threading.Thread]:
    """What a reward says of copies of groups, one after another, whatever it does: for each row one judgement of finite
    score, or a failure. Once a deadline has passed without a group done, those that are left fail.

    With it the thread of the calls, which is alive where the reward hangs.
    """
    came, over = list[list[Judgement]](), threading.Event()

    def call() -> None:
        for group in groups:
            judged = _judged(reward, group)
            if over.is_set():
                return
            came.append(judged)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    done = -1
    try:
        while thread.is_alive() and len(came) > done:
            done = len(came)
            thread.join(deadline)
    finally:
        over.set()
    in_time = list(came)
    late = [[Judgement.failed("timeout")] * len(group.completions) for group in groups[len(in_time) :]]
    return in_time + late, thread


def _judged(reward: Reward, group: Group) -> list[Judgement]:
    rows = len(group.completions)
    try:
        given = listed(reward.judge(_copy(group)))
        if len(given) != rows:
            raise Refused(f"gave {len(given)} judgements for {rows} completions")
        return [_plain(one) for one in given]
    except BaseException as error:
        return [Judgement.failed(as_text(error))] * rows


def _copy(group: Group) -> Group:
    return Group(
        completions=tuple(group.completions),
        tokens=Lazily(lambda: map(tuple, group.tokens)),
        finished=tuple(group.finished),
        columns=copy.deepcopy(dict(group.columns)),
        raw=Lazily(lambda: group.raw),
        beside=group.beside,
        episodes=copy.deepcopy(list(group.episodes)),
    )


def _plain(given: Any) -> Judgement:
    one: Judgement = given if isinstance(given, Judgement) else Judgement(given)
    try:
        if one.fault is not None:
            raise Refused(one.fault)
        return Judgement(
            None if one.score is None else _bounded(number(one.score)),
            None if one.right is None else bool(one.right),
            None if one.answer is None else text(one.answer),
        )
    except Exception as error:
        return Judgement.failed(as_text(error))


def _bounded(score: float) -> float:
    if abs(score) <= MAX_SCORE:
        return score
    raise Refused(f"gave {score:g} as a score, where a number from {-MAX_SCORE:g} to {MAX_SCORE:g} is expected")
