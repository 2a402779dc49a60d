"""Questions are played: the episodes of each, judged, as the rows of its group."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from posttrain.data.rows import Problem
from posttrain.errors import SetupError
from posttrain.rewards.base import Group, Lazily
from posttrain.train.collect.asking import Asked as Planned
from posttrain.train.collect.asking import Asker
from posttrain.train.collect.episodes.episode import Episode
from posttrain.train.collect.episodes.player import Asked, Player
from posttrain.train.collect.groups import NGRAM, Rollouts, repeated, total_of


class EpisodeAsker(Asker):
    """Has questions played, and what became of it judged.

    Args:
        player: plays.
        given: as for `Asker`.
    """

    def __init__(self, *given: Any, player: Player) -> None:
        super().__init__(*given)
        self._player = player

    def _share(self, asked: Sequence[Planned], step: int) -> list[Rollouts]:
        problems = [self._problems[question.id % len(self._problems)] for question, _ in asked]
        wanted = list[Asked]()
        for (question, plan), problem in zip(asked, problems, strict=True):
            if any(request.prefix or request.temperature is not None for request in plan):
                name = self._algorithm.name
                raise SetupError(f"{name} plans answers that begin with a prefix, or greedy ones, and episodes are neither.")
            wanted.append(Asked(question.id, problem.prompt, problem.columns, sum(request.n for request in plan)))
        groups = self._player.play(wanted, dataclasses.replace(self._sampling, step=step))
        self._check({one.version for group in groups for one in group if one.played})
        return [self._group(problem, group) for problem, group in zip(problems, groups, strict=True)]

    def _group(self, problem: Problem, episodes: Sequence[Episode]) -> Rollouts:
        own = [one.own for one in episodes]
        judged = self._judges.judge(
            Group(
                completions=[one.last.text for one in episodes],
                tokens=Lazily(lambda: [tuple(ids.tolist()) for ids in own]),
                finished=[one.last.finish == "stop" for one in episodes],
                columns=problem.columns,
                raw=Lazily(lambda: [self._raw(problem, one) for one in episodes]),
                episodes=[one.shown() for one in episodes],
            )
        )
        self.error_rate.add(judged)
        rows = [one.row(self._player.filler) for one in episodes]
        return Rollouts(
            problem,
            np.concatenate([ids for ids, _, _ in rows]),
            np.concatenate([logprobs for _, logprobs, _ in rows]),
            np.array([len(ids) for ids, _, _ in rows]),
            np.zeros(len(rows), np.int64),
            np.array([one.cut_off for one in episodes]),
            np.array([repeated(ids, NGRAM) for ids in own]),
            np.array([total_of(logprobs) for _, logprobs, _ in rows]),
            judged,
            own=np.concatenate([wrote for _, _, wrote in rows]),
            episodes=tuple(episodes),
        )

    def _raw(self, problem: Problem, episode: Episode) -> str:
        """The last turn's text with all special tokens."""
        columns = problem.columns if len(episode.played) < 2 else {}
        return self._text.raw(episode.before_last(problem.prompt), columns, episode.last_ids)
