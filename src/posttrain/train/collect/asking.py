"""Questions are asked: what is planned for them is sampled and judged, over all ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set

import numpy as np

from posttrain.data.answers import AnswerText
from posttrain.data.rows import Problem
from posttrain.distributed import ranks
from posttrain.errors import EngineError, SetupError
from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.batch import Question, Request
from posttrain.rewards.base import Group, Lazily, Weighted
from posttrain.rewards.error_rate import ErrorRate
from posttrain.rewards.judge import Judges
from posttrain.rollout.engine import Completion, RolloutEngine, Sampling
from posttrain.train.collect.groups import Baseline, Rollouts

Asked = tuple[Question, list[Request]]
"""A question, and what is to be sampled for it."""


class Asker:
    """Has questions answered by an engine, whose weights are of `version`, and the answers judged.

    Args:
        problems: the questions; that of a `Question` is its id, modulo their number.
        algorithm: whose needs say what is judged beside what is sampled.
        engine: samples.
        rewards: judge; `error_rate` has how often they failed of late.
        sampling: of every completion, but for its `step`.
        text: of completions, for the rewards.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        algorithm: Algorithm,
        engine: RolloutEngine,
        rewards: Sequence[Weighted],
        sampling: Sampling,
        text: AnswerText,
    ) -> None:
        self._problems, self._algorithm, self._engine = problems, algorithm, engine
        self._judges, self.error_rate = Judges(rewards), ErrorRate(rewards)
        self._sampling, self._text = sampling, text
        self.version = 0

    def groups(self, asked: Sequence[Asked], step: int) -> list[Rollouts]:
        """The groups of these questions, on every rank; each has sampled and judged its share of them."""
        share = self._share(ranks.my_share(asked), step)
        groups = ranks.all_shares(share, f"the rollouts of step {step + 1}")
        problems = [self._problems[question.id % len(self._problems)] for question, _ in asked]
        return [dataclasses.replace(group, problem=problem) for group, problem in zip(groups, problems, strict=True)]

    def _share(self, asked: Sequence[Asked], step: int) -> list[Rollouts]:
        requests = [request for _, plan in asked for request in plan]
        self._check_temperatures([plan for _, plan in asked])
        answered = self._engine.generate(requests, dataclasses.replace(self._sampling, step=step))
        self._check({completion.version for group in answered for completion in group})
        answers = iter(answered)
        return [
            self._judged(
                self._problems[question.id % len(self._problems)],
                [(request, completion) for request in plan for completion in next(answers)],
            )
            for question, plan in asked
        ]

    def _judged(self, problem: Problem, answered: list[tuple[Request, Completion]]) -> Rollouts:
        """The answers' rewards. A demonstration that is to be a row is the last one, and is judged like an answer; so is a
        greedy answer, which is no row, and has no part in what rewards compare.
        """
        has_greedy = self._algorithm.needs.baseline == "greedy"
        greedy = [one for one in answered if has_greedy and one[0].temperature == 0]
        answers = [
            (request.prefix, completion) for request, completion in answered if not has_greedy or request.temperature != 0
        ]
        demonstrated = self._algorithm.needs.demonstration == "row" and problem.demonstration is not None
        if demonstrated and problem.demonstration is not None:
            answers = [*answers, (problem.demonstration, Completion((), (), "stop", answers[0][1].version))]
        judged_too = [*answers, *((request.prefix, completion) for request, completion in greedy)]
        tokens = [np.concatenate([np.asarray(prefix, np.int32), completion.tokens]) for prefix, completion in judged_too]
        asked = problem.prompt, problem.columns
        judged = self._judges.judge(
            Group(
                completions=[self._text.of(*asked, ids) for ids in tokens],
                tokens=Lazily(lambda: [tuple(ids.tolist()) for ids in tokens]),
                finished=[completion.finish == "stop" for _, completion in judged_too],
                columns=problem.columns,
                raw=Lazily(lambda: [self._text.raw(*asked, ids) for ids in tokens]),
                beside=len(greedy),
            )
        )
        self.error_rate.add(judged)
        baseline = None
        if greedy:
            value = float(judged.total[-1]) if judged.graded[-1] else None
            baseline = Baseline(value, tokens=len(greedy[-1][1].tokens))
        elif self._algorithm.needs.baseline == "value":
            baseline = Baseline(float(problem.columns["value"]))
        own = judged.take(range(len(answers)))
        return Rollouts.of(problem, answers, own, demonstrated=demonstrated, baseline=baseline)

    def _check_temperatures(self, planned: Sequence[Sequence[Request]]) -> None:
        """What is trained is of the one distribution that log-probs are of; a baseline's answer is greedy, and one."""
        name, greedy = self._algorithm.name, self._algorithm.needs.baseline == "greedy"
        for plan in planned:
            others = [one for one in plan if one.temperature not in (None, self._sampling.temperature)]
            if greedy and [(one.temperature, one.n, len(one.prefix)) for one in others] != [(0.0, 1, 0)]:
                raise SetupError(f'{name} needs baseline="greedy": its plan must ask for one answer at temperature 0.')
            if others and not greedy:
                raise SetupError(
                    f"{name} plans answers at temperature {others[0].temperature:g}, and log-probs are of "
                    f'{self._sampling.temperature:g}: leave temperatures out, or take Needs(baseline="greedy").'
                )

    def _check(self, versions: Set[int]) -> None:
        if others := versions - {self.version}:
            raise EngineError(
                f"The engine sampled from weights of version {min(others)}, and the trainer's are version {self.version}: "
                "a sync did not arrive. The last checkpoint is whole; the same command resumes from it."
            )
