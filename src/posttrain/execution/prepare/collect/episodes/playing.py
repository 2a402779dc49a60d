"""Plays every row's episodes, in a file that an interrupted run goes on with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from posttrain.data.answers import prompt_text
from posttrain.data.rows import Problem, digest
from posttrain.distributed import ranks
from posttrain.environments.options import EnvironmentConfig
from posttrain.environments.reward import paid_by
from posttrain.execution.evaluation import episode_grade
from posttrain.execution.prepare.collect.episodes.line import Lived, Played
from posttrain.rewards.base import Judgement
from posttrain.rewards.error_rate import ErrorRate
from posttrain.rewards.grading import Grader, Verdict
from posttrain.rewards.judge import summed
from posttrain.rollout.engine import Sampling
from posttrain.telling import tell
from posttrain.train.collect.episodes.episode import Episode
from posttrain.train.collect.episodes.player import Asked, Player
from posttrain.train.watch.records import JsonLines

CHUNK = 256  # rows whose episodes are played, judged and written together


def play(player: Player, problems: Sequence[Problem], k: int, grader: Grader, sampling: Sampling, path: Path) -> list[Played]:
    """k episodes of every row, in order, each rank its share, judged as in evaluations. A line of `path` for each row, with a
    digest of all rows; those that are there already are not played again, if they are of these rows.

    Raises:
        EngineError: the engine failed; what was played until then is kept.
        RewardError: the environment fails more often than it may.
    """
    file, data, rate = JsonLines(path), digest(problems), _Rate(player.config)
    done = ranks.broadcast(_of_these(file, data) if ranks.is_main() else [], "what was played before")
    if ranks.is_main():
        file.rewrite({**one.line(), "data": data} for one in done)
    while (first := len(done)) < len(problems):
        mine = ranks.my_share(range(first, min((first // CHUNK + 1) * CHUNK, len(problems))))
        asked = [Asked(i, problems[i].prompt, problems[i].columns, k) for i in mine]
        groups = player.play(asked, sampling)
        share = [_judged(problems[i], group, grader, player.filler) for i, group in zip(mine, groups, strict=True)]
        fresh = ranks.all_shares(share, f"the episodes of rows {first + 1} and after")
        rate.add([one for each in fresh for one in each.episodes])
        for one in fresh if ranks.is_main() else ():
            file.append({**one.line(), "data": data})
        done += fresh
    return done


def _of_these(file: JsonLines, data: str) -> list[Played]:
    """What a file has of the rows with this digest; of others nothing is used."""
    lines = file.read()
    if any(line.get("data") != data for line in lines):
        tell("collected-anew", f"{file.path} was played for other rows than the data are now: all are played anew.")
        return []
    return [Played.read(line) for line in lines]


def _judged(problem: Problem, episodes: Sequence[Episode], grader: Grader, filler: int) -> Played:
    prompt, reference = prompt_text(problem.columns["prompt"]), str(problem.columns.get("answer", ""))
    lived = list[Lived]()
    for one in episodes:
        verdict = episode_grade(one, grader, prompt, reference).verdict
        lived.append(Lived.of(one, filler, None if verdict.failed else verdict is Verdict.RIGHT))
    return Played(problem.where, lived)


class _Rate:
    """How often an environment fails, as in training."""

    def __init__(self, config: EnvironmentConfig) -> None:
        self._entries = [paid_by(config, judged=True)]
        self._rate = ErrorRate(self._entries)

    def add(self, episodes: Sequence[Lived]) -> None:
        judged = [Judgement(0.0) if one.fault is None else Judgement.failed(f"{one.end}: {one.fault}") for one in episodes]
        self._rate.add(summed(self._entries, [judged], len(judged)))
