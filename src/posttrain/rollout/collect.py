"""The collector of rollouts: questions → completions → rewards → the rows of one or several optimizer steps."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posttrain.collection import Collection
from posttrain.data.order import step_indices
from posttrain.data.rows import Problem, Row
from posttrain.errors import EngineError
from posttrain.estimator import Algorithm
from posttrain.rewards.base import Group, Rewarded, Weighted, judge
from posttrain.rollout.engine import Completion, RolloutEngine, Sampling
from posttrain.types import Batch, Origin, Question

SHOWN = 16  # completions of a collection that are kept to be read
RESAMPLES = 8  # rounds in which groups without signal are replaced; DAPO's own code allows ten batches


@dataclass(frozen=True, slots=True)
class _Rollouts:
    """A question, its completions with the prefix that each was given, and what their rewards are."""

    problem: Problem
    prefixes: list[Sequence[int]]
    completions: list[Completion]
    texts: list[str]
    rewarded: Rewarded


class RolloutCollector:
    """Samples completions for the next questions, and has them judged.

    The questions of a step, and the samples drawn for them, are functions of (seed, step) and the model. Where the algorithm
    asks for it, groups that `prepare` takes out of the loss are replaced by other questions, a bounded number of times.

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
    ) -> None:
        self._problems, self._algorithm, self._engine, self._rewards = problems, algorithm, engine, rewards
        self._sampling, self._tokenizer, self._mask_cut_off = sampling, tokenizer, mask_cut_off
        self._questions, self._resamples = questions, resamples if algorithm.needs.resample else 0

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """See `Collector`.

        Raises:
            EngineError: the engine failed, or sampled from other weights than the model's.
        """
        started = time.monotonic()
        self._engine.sync(model, step)
        synced = time.monotonic()
        rollouts = self._sampled(step, progress)
        seen = list(rollouts)
        for attempt in range(1, self._resamples + 1):
            dull = self._without_signal(self._batch(rollouts, progress))
            if not dull:
                break
            fresh = self._sampled(step, progress, attempt, len(dull))
            seen += fresh
            for place, group in zip(dull, fresh, strict=True):
                rollouts[place] = group
        metrics = _metrics(seen, time.monotonic() - synced)
        metrics["rollout/sync_seconds"] = synced - started
        if self._resamples:
            metrics["rollout/replaced_groups"] = float(len(seen) - len(rollouts))
        batch = self._batch(rollouts, progress)
        return self._collection(rollouts, batch, metrics)

    def _sampled(self, step: int, progress: float, attempt: int = 0, groups: int | None = None) -> list[_Rollouts]:
        """The groups of the next questions; an `attempt` takes others, from an order of its own."""
        updates, size, seed = self._algorithm.needs.updates, len(self._problems), self._sampling.seed
        chosen = step_indices(size, self._questions, step, seed + (attempt << 32), updates)[:groups]
        questions: list[Question] = []
        for position, index in enumerate(chosen, step * self._questions):
            turn = (attempt << 32) + position // size  # the same question has other samples in another epoch
            problem = self._problems[index]
            questions.append(Question(turn * size + index, problem.prompt, columns=problem.columns))
        planned = [self._algorithm.plan(q, progress, Random(f"{seed}/{step}/{q.id}")) for q in questions]
        requests = [request for plan in planned for request in plan]
        answered = self._engine.generate(requests, dataclasses.replace(self._sampling, step=step))
        self._check(answered, step)
        answers = iter(answered)
        return [
            self._judged(
                self._problems[index],
                [(request.prefix, completion) for request in plan for completion in next(answers)],
            )
            for index, plan in zip(chosen, planned, strict=True)
        ]

    def _judged(self, problem: Problem, answers: list[tuple[Sequence[int], Completion]]) -> _Rollouts:
        prefixes, completions = [prefix for prefix, _ in answers], [completion for _, completion in answers]
        tokens = [(*prefix, *completion.tokens) for prefix, completion in answers]
        texts = [self._tokenizer.decode(ids, skip_special_tokens=True) for ids in tokens]
        group = Group(
            completions=texts, tokens=tokens, finished=[c.finish == "stop" for c in completions], columns=problem.columns
        )
        return _Rollouts(problem, prefixes, completions, texts, judge(self._rewards, group))

    def _check(self, answered: list[list[Completion]], step: int) -> None:
        versions = {completion.version for group in answered for completion in group}
        if versions - {step}:
            raise EngineError(
                f"The engine sampled from weights of version {min(versions - {step})}, and the trainer's are version {step}: "
                "a sync did not arrive. The last checkpoint is whole; the same command resumes from it."
            )

    def _without_signal(self, batch: Batch) -> list[int]:
        """Groups that the algorithm takes out of the loss."""
        carries = self._algorithm.prepare(batch).loss_mask.any(-1)
        return [group for group in range(int(batch.group.max()) + 1) if not bool(carries[batch.group == group].any())]

    def _batch(self, rollouts: Sequence[_Rollouts], progress: float) -> Batch:
        rows = [pair for group in rollouts for pair in zip(group.prefixes, group.completions, strict=True)]
        shape = (len(rows), max(len(prefix) + len(completion.tokens) for prefix, completion in rows))
        mask, tokens = np.zeros(shape, np.bool_), np.zeros(shape, np.int64)
        origin, behavior = np.full(shape, Origin.ROLLOUT, np.int64), np.zeros(shape, np.float32)
        for i, (prefix, completion) in enumerate(rows):
            start, end = len(prefix), len(prefix) + len(completion.tokens)
            tokens[i, :end] = (*prefix, *completion.tokens)
            mask[i, :end] = not (self._mask_cut_off and completion.finish == "length")
            origin[i, :start], behavior[i, start:end] = Origin.DEMO, completion.logprobs
        rewarded = Rewarded.join([group.rewarded for group in rollouts])
        return Batch(
            loss_mask=torch.from_numpy(mask),
            tokens=torch.from_numpy(tokens),
            origin=torch.from_numpy(origin),
            behavior_logp=torch.from_numpy(behavior),
            group=torch.tensor([i for i, group in enumerate(rollouts) for _ in group.completions]),
            reward=rewarded.total,
            rewards_by_name=rewarded.by_name,
            reward_mask=rewarded.graded,
            correct=rewarded.correct,
            progress=progress,
        )

    def _collection(self, rollouts: Sequence[_Rollouts], batch: Batch, metrics: dict[str, float]) -> Collection:
        rows = [
            Row(
                np.array(group.problem.prompt, np.int32),
                np.array((*prefix, *completion.tokens), np.int32),
                np.ones(len(prefix) + len(completion.tokens), np.bool_),
            )
            for group in rollouts
            for prefix, completion in zip(group.prefixes, group.completions, strict=True)
        ]
        owners, updates = batch.group.tolist(), self._algorithm.needs.updates
        return Collection(
            rows=tuple(rows),
            units=tuple((i,) for i in range(len(rows))),
            steps=tuple(tuple(u for u, g in enumerate(owners) if g // self._questions == k) for k in range(updates)),
            where=tuple(rollouts[g].problem.where for g in owners),
            batch=batch,
            metrics=metrics,
            samples=_shown(rollouts),
        )


def _metrics(rollouts: Sequence[_Rollouts], seconds: float) -> dict[str, float]:
    """Of all completions that were sampled, also of those in groups that were replaced."""
    rewarded = Rewarded.join([group.rewarded for group in rollouts])
    completions = [completion for group in rollouts for completion in group.completions]
    graded, lengths = rewarded.graded, [len(completion.tokens) for completion in completions]
    count = max(int(graded.sum()), 1)
    metrics = {
        "reward/mean": float(rewarded.total[graded].sum()) / count,
        **{f"reward/{name}": float(scores[graded].sum()) / count for name, scores in rewarded.by_name.items()},
        "rollout/length": float(np.mean(lengths)),
        "rollout/length/max": float(max(lengths)),
        "rollout/cut_off": sum(completion.finish == "length" for completion in completions) / len(completions),
        "rollout/failed_grades": 1 - int(graded.sum()) / len(completions),
        "rollout/equal_groups": sum(_is_flat(group.rewarded) for group in rollouts) / len(rollouts),
        "rollout/tokens": float(sum(lengths)),
        "rollout/seconds": seconds,
        "rollout/tokens_per_second": sum(lengths) / max(seconds, 1e-9),
        "entropy": -sum(sum(completion.logprobs) for completion in completions) / sum(lengths),
    }
    if rewarded.correct is not None:
        metrics["rollout/correct"] = float(rewarded.correct[graded].sum()) / count
    return metrics


def _is_flat(rewarded: Rewarded) -> bool:
    rewards: Tensor = rewarded.total[rewarded.graded]
    return not len(rewards) or bool((rewards == rewards[0]).all())


def _shown(rollouts: Sequence[_Rollouts]) -> list[dict[str, Any]]:
    """The first completions, for a file and for people."""
    shown = [
        {
            "where": group.problem.where,
            "prompt": str(group.problem.columns["prompt"]),
            "completion": text,
            "reward": float(group.rewarded.total[i]),
            "rewards": {name: float(scores[i]) for name, scores in group.rewarded.by_name.items()},
            "correct": None if group.rewarded.correct is None else bool(group.rewarded.correct[i]),
            "graded": bool(group.rewarded.graded[i]),
            "tokens": len(completion.tokens),
            "finish": completion.finish,
        }
        for group in rollouts[:SHOWN]
        for i, (text, completion) in enumerate(zip(group.texts, group.completions, strict=True))
    ]
    return shown[:SHOWN]
