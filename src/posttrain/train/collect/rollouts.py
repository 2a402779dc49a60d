"""The collector of rollouts: questions → completions → rewards → the rows of one or several optimizer steps."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import chain, cycle
from random import Random
from typing import Any

import numpy as np
import torch

from posttrain.data.answers import AnswerText
from posttrain.data.encoding.teacher import AskedLater
from posttrain.data.rows import Problem, Row
from posttrain.environments.base import End
from posttrain.errors import SetupError
from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.batch import Origin, Question
from posttrain.estimator.parts.plan import branch
from posttrain.rewards.base import Weighted
from posttrain.rewards.rewarded import Rewarded
from posttrain.rollout.engine import RolloutEngine, Sampling, rest
from posttrain.train.collect.asking import Asked, Asker
from posttrain.train.collect.collection import NOTHING, Collection
from posttrain.train.collect.episodes.asker import EpisodeAsker
from posttrain.train.collect.episodes.credit import turn_fields
from posttrain.train.collect.episodes.metrics import episode_metrics
from posttrain.train.collect.episodes.player import Player
from posttrain.train.collect.flat import NAMED, Flat
from posttrain.train.collect.groups import Rollouts
from posttrain.train.collect.groups.metrics import branch_metrics, read_aside, rollout_metrics, shown
from posttrain.train.collect.groups.taught import taught_of
from posttrain.train.collect.order import Mixed, Rule, order_of

RESAMPLES = 8  # rounds in which groups without signal are replaced; DAPO's own code allows ten batches


class RolloutCollector:
    """Samples completions for the next questions, and has them judged.

    The questions of a step, and the samples drawn for them, are functions of (seed, step) and the model. Where the algorithm
    asks for it, groups that `prepare` takes out of the loss are replaced by other questions, a bounded number of times, or
    groups without a right rollout by rollouts that branch off from the question's demonstration.

    Args:
        problems: the questions, with the columns that rewards read.
        algorithm: plans what is sampled for each question.
        engine: samples; it is brought to the model's weights first.
        rewards: judge the completions.
        sampling: of every completion; its `step` is the collector's to set.
        tokenizer: turns completions into text for the rewards.
        questions: of each optimizer step.
        mask_cut_off: completions that max_tokens cut off carry no loss; they stay in their group's baseline.
        resamples: rounds of replacing.
        asked_later: how a teacher is asked that is shown what is sampled, where the algorithm has one.
        end: questions that the run asks in all, replaced ones not counted; None: every step is whole.
        mixed: the sources that they are of, if there are several.
        rule: of the order of one source; a random one if not told.
        player: plays episodes with an environment, where there is one.

    Raises:
        SetupError: the algorithm asks for turns, and there is no player.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        algorithm: Algorithm,
        engine: RolloutEngine,
        rewards: Sequence[Weighted],
        sampling: Sampling,
        tokenizer: Any,
        *,
        questions: int,
        mask_cut_off: bool = False,
        resamples: int = RESAMPLES,
        asked_later: AskedLater | None = None,
        end: int | None = None,
        mixed: Mixed | None = None,
        rule: Rule | None = None,
        player: Player | None = None,
    ) -> None:
        self._problems, self._algorithm, self._engine = problems, algorithm, engine
        self._sampling, self._text, self._mask_cut_off = sampling, AnswerText(tokenizer), mask_cut_off
        self._teacher = None if asked_later is None else asked_later.prompts(tokenizer)
        given = (problems, algorithm, engine, rewards, sampling, self._text)
        self._asker = Asker(*given) if player is None else EpisodeAsker(*given, player=player)
        self._mask: Container[End] = () if player is None else player.config.mask
        self._turn_weight = None if not algorithm.needs.turns or player is None else player.config.weight
        if algorithm.needs.turns and player is None:
            raise SetupError(f"{algorithm.name} has turns paid one by one, and without an environment there are none.")
        self._mask_failed_calls = player is not None and player.config.mask_failed_calls
        self._order = order_of(len(problems), questions, sampling.seed, end, mixed, rule)
        self._questions, self._resamples = questions, resamples if algorithm.needs.resample else 0

    def collect(self, model: Any, step: int, progress: float, *, without: int = 0) -> Collection:
        """See `Collector`. Of the steps before, so many were `without` questions.

        Raises:
            EngineError: the engine failed, or sampled from other weights than the model's.
            RewardError: a reward fails too often.
        """
        started = time.monotonic()
        self._engine.sync(model, step)
        collection = self.sampled(step, progress, version=step, synced=time.monotonic() - started, without=without)
        rest(self._engine)
        return collection

    def sampled(self, step: int, progress: float, *, version: int, synced: float, without: int = 0) -> Collection:
        """The collection that begins at `step`, of an engine whose weights are of this version, and took so many seconds to
        come.

        Raises:
            EngineError, RewardError: as `collect`.
        """
        started, self._asker.version = time.monotonic(), version
        questions, branches = self._next(step - without), self._algorithm.needs.branches
        rollouts = self._asker.groups(self._planned(questions, step, progress), step)
        seen = list(rollouts)
        if branches:
            self._branch_off(questions, rollouts, seen, step)
        self._resample(rollouts, seen, step, progress)
        metrics = rollout_metrics(seen, time.monotonic() - started)
        metrics["rollout/sync_seconds"] = synced
        metrics |= branch_metrics(rollouts) if branches else {}
        metrics |= episode_metrics([episode for group in seen for episode in group.episodes])
        if self._resamples:
            metrics["rollout/replaced_groups"] = float(len(seen) - len(rollouts))
            metrics["rollout/unfilled_groups"] = len(self._without_signal(rollouts, progress)) / len(rollouts)
        collection = dataclasses.replace(self._collection(rollouts, progress, metrics), aside=read_aside(seen, rollouts))
        if version == step:
            return collection
        versions = torch.full((len(collection.flat), 1), version, dtype=torch.int32)
        return dataclasses.replace(collection, flat=collection.flat.replace(version=versions))

    def state(self) -> dict[str, Any]:
        """See `Collector`: the latest failures of the rewards."""
        return {"failures": self._asker.error_rate.state()}

    def restore(
        self, state: Mapping[str, Any], ahead: Mapping[int, Collection] = NOTHING, kept: Collection | None = None
    ) -> None:
        """See `Collector`."""
        self._asker.error_rate.restore(state["failures"])

    def ahead(self, step: int) -> dict[int, Collection]:
        """See `Collector`: nothing."""
        return {}

    def kept(self) -> Collection | None:
        """See `Collector`: nothing."""
        return None

    def _next(self, step: int) -> list[Question]:
        """The questions of a step, and of those that share its collection; another epoch has other samples of each."""
        return [self._question(i, epoch) for i, epoch in self._order.turns(step, self._algorithm.needs.updates)]

    def _others(self, seen: Sequence[Rollouts], step: int, attempt: int, dull: Sequence[Rollouts]) -> list[Question]:
        """For each of these groups a question of its source that the collection has not seen yet, as far as there are any."""
        size = len(self._problems)
        order = order_of(size, size, self._sampling.seed + (attempt << 32)).of(step)
        used = {id(group.problem) for group in seen}
        next_of: dict[str, Iterator[int]] = {}
        for source in {group.problem.source for group in dull}:
            own = [i for i in order if self._problems[i].source == source]
            next_of[source] = chain((i for i in own if id(self._problems[i]) not in used), cycle(own))
        chosen = [next(next_of[group.problem.source]) for group in dull]
        return [self._question(i, (attempt << 32) + step + (place << 48)) for place, i in enumerate(chosen)]

    def _resample(self, rollouts: list[Rollouts], seen: list[Rollouts], step: int, progress: float) -> None:
        """Puts other questions in the place of groups without signal; what is sampled is added to `seen`."""
        for attempt in range(1, self._resamples + 1):
            dull = self._without_signal(rollouts, progress)
            if not dull:
                break
            others = self._others(seen, step, attempt, [rollouts[place] for place in dull])
            fresh = self._asker.groups(self._planned(others, step, progress), step)
            seen += fresh
            for place, group in zip(dull, fresh, strict=True):
                rollouts[place] = group

    def _branch_off(self, questions: Sequence[Question], rollouts: list[Rollouts], seen: list[Rollouts], step: int) -> None:
        """Puts in the place of a group without a right rollout the one that goes on from the shortest head of its
        demonstration from which one is right, if there is such a head; what is sampled is added to `seen`.
        """
        n = self._algorithm.needs.rollouts
        worked = {i: dict[int, bool]() for i, group in enumerate(rollouts) if group.solved is False}
        while asked := [
            (i, request) for i, tried in worked.items() if (request := branch(questions[i], n, tried)) is not None
        ]:
            groups = self._asker.groups([(questions[i], [request]) for i, request in asked], step)
            seen += groups
            for (i, request), group in zip(asked, groups, strict=True):
                worked[i][len(request.prefix)] = solved = group.solved is True
                if solved:
                    rollouts[i] = group

    def _question(self, index: int, turn: int) -> Question:
        problem = self._problems[index]
        turned = turn * len(self._problems) + index
        return Question(turned, problem.prompt, problem.demonstration, columns=problem.columns, cuts=problem.cuts)

    def _planned(self, questions: Sequence[Question], step: int, progress: float) -> list[Asked]:
        seed = self._sampling.seed
        return [(q, self._algorithm.plan(q, progress, Random(f"{seed}/{step}/{q.id}"))) for q in questions]

    def _muted(self, rollouts: Sequence[Rollouts]) -> tuple[int, ...]:
        cut_off = np.concatenate([group.cut_off & self._mask_cut_off for group in rollouts])
        ends = [episode.end in self._mask for group in rollouts for episode in group.episodes]
        return tuple(np.flatnonzero(cut_off | np.array(ends) if ends else cut_off).tolist())

    def _without_signal(self, rollouts: Sequence[Rollouts], progress: float) -> list[int]:
        """Groups of which no row carries loss."""
        batch = self._flat(rollouts, progress).batch()
        carries = self._algorithm.prepare(batch).loss_mask.any(-1)
        carries[list(self._muted(rollouts))] = False
        return [group for group in range(int(batch.group.max()) + 1) if not bool(carries[batch.group == group].any())]

    def _flat(self, rollouts: Sequence[Rollouts], progress: float) -> Flat:
        lengths, prefixes = (np.concatenate([getattr(one, name) for one in rollouts]) for name in ("lengths", "prefixes"))
        rewarded = Rewarded.join([group.rewarded for group in rollouts])
        graded = rewarded.graded & rewarded.known if self._algorithm.needs.verdict else rewarded.graded
        worth = [group.baseline.value for group in rollouts if group.baseline is not None for _ in range(len(group))]
        if worth:
            graded = graded & torch.tensor([one is not None for one in worth])
        origin = np.full(int(lengths.sum()), Origin.ROLLOUT, np.int8)
        for start, prefix in zip(np.cumsum(lengths) - lengths, prefixes, strict=True):
            origin[start : start + prefix] = Origin.DEMO
        if rollouts[0].own is not None:
            origin[~np.concatenate([group.own for group in rollouts if group.own is not None])] = Origin.OTHER
        learnt = origin != Origin.OTHER
        if self._mask_failed_calls:
            learnt &= ~np.concatenate([one.failed_calls() for group in rollouts for one in group.episodes])
        fields = {
            "loss_mask": torch.from_numpy(learnt),
            "tokens": torch.from_numpy(np.concatenate([group.tokens for group in rollouts])),
            "origin": torch.from_numpy(origin),
            "behavior_logp": torch.from_numpy(np.concatenate([group.logprobs for group in rollouts])),
            "group": torch.tensor([i for i, group in enumerate(rollouts) for _ in range(len(group))]),
            "reward": rewarded.total,
            "reward_mask": graded,
            **{NAMED + name: scores for name, scores in rewarded.by_name.items()},
            **({} if rewarded.correct is None else {"correct": rewarded.correct}),
            **({"baseline": torch.tensor([one or 0.0 for one in worth], dtype=torch.float64)} if worth else {}),
        }
        if self._turn_weight is not None:
            fields |= turn_fields([episode for group in rollouts for episode in group.episodes], self._turn_weight)
        return Flat(lengths, fields, progress)

    def _collection(self, rollouts: Sequence[Rollouts], progress: float, metrics: dict[str, float]) -> Collection:
        flat, taught = self._flat(rollouts, progress), taught_of(rollouts, self._teacher, self._text)
        if self._teacher is not None:
            flat = flat.replace(taught=torch.tensor([prompt is not None for prompt in taught]))
            metrics["rollout/taught"] = sum(prompt is not None for prompt in taught) / len(taught)
        tokens, owners = flat.fields["tokens"].numpy(), flat.fields["group"].tolist()
        prompts = [np.array(group.problem.prompt, np.int32) for group in rollouts]
        learnt = flat.fields["loss_mask"].numpy()
        return Collection(
            rows=tuple(
                Row(prompts[g], tokens[flat.span(i)], learnt[flat.span(i)], teacher_prompt=taught[i])
                for i, g in enumerate(owners)
            ),
            units=tuple((i,) for i in range(len(flat))),
            steps=tuple(
                tuple(u for u, g in enumerate(owners) if g // self._questions == k)
                for k in range(self._algorithm.needs.updates)
            ),
            where=tuple(rollouts[g].problem.where for g in owners),
            sources=tuple(rollouts[g].problem.source for g in owners),
            flat=flat,
            muted=self._muted(rollouts),
            metrics=metrics,
            samples=shown(rollouts, self._text),
        )
