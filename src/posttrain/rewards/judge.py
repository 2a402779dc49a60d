"""Every reward on one group, and what keeps a reward from hurting the run: its exceptions, its values, its time."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from posttrain.rewards.base import Group, Judgement, Reward, Rewarded, Weighted


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
            judgements, self._stuck[name] = guarded(entry.reward, group, entry.deadline)
            judged.append(judgements)
        return summed(self._rewards, judged)


def summed(rewards: Sequence[Weighted], judged: Sequence[Sequence[Judgement]]) -> Rewarded:
    """The weighted sum of what each reward said of each row."""
    rows = len(judged[0])
    total, graded = torch.zeros(rows, dtype=torch.float64), torch.ones(rows, dtype=torch.bool)
    by_name: dict[str, Tensor] = {}
    faults: dict[str, tuple[str | None, ...]] = {}
    answers: list[str | None] = [None] * rows
    correct, known = None, torch.zeros(rows, dtype=torch.bool)
    for entry, judgements in zip(rewards, judged, strict=True):
        said = torch.tensor([one.score is not None for one in judgements], dtype=torch.bool)
        scores = torch.tensor([one.score or 0.0 for one in judgements], dtype=total.dtype)
        by_name[entry.reward.name] = scores
        faults[entry.reward.name] = tuple(one.fault for one in judgements)
        if entry.weight:
            total, graded = total + entry.weight * scores, graded & said
        if entry.verdict:
            correct = torch.tensor([bool(one.right) for one in judgements], dtype=torch.bool)
            known = said
        if entry.verdict or not any(answers):
            answers = [one.answer for one in judgements]
    return Rewarded(total, by_name, graded, correct, known, faults, tuple(answers))


def guarded(reward: Reward, group: Group, deadline: float) -> tuple[list[Judgement], threading.Thread]:
    """What a reward says of a group, whatever it does: one judgement of finite score, or a failure, for each row.

    With it the thread of the call, which is alive where the reward hangs.
    """
    came: list[Any] = []

    def call() -> None:
        try:
            came.append(list(reward.judge(group)))
        except BaseException as error:
            came.append(f"raised {type(error).__name__}: {error}")

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(deadline)
    return _whole("timeout" if thread.is_alive() else came[0], len(group.completions)), thread


def _whole(came: list[Any] | str, rows: int) -> list[Judgement]:
    if isinstance(came, list) and len(came) != rows:
        came = f"gave {len(came)} judgements for {rows} completions"
    return [Judgement.failed(came)] * rows if isinstance(came, str) else [_checked(one) for one in came]


def _checked(one: Any) -> Judgement:
    if not isinstance(one, Judgement):
        one = Judgement(one)
    if one.score is None:
        return one
    try:
        score = float(one.score)
    except (TypeError, ValueError, RuntimeError):
        return Judgement.failed(f"gave {type(one.score).__name__} as a score")
    if not math.isfinite(score):
        return Judgement.failed(f"gave {score} as a score")
    return Judgement(score, one.right, one.answer)
