"""A question's completions and what their rewards are; what is logged of them, and what is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from posttrain.data.rows import Problem
from posttrain.rewards.base import Rewarded
from posttrain.rewards.repetition import repeated
from posttrain.rollout.engine import Completion

SHOWN = 16  # completions of a collection that are kept to be read
NGRAM = 4  # tokens, for the share of a completion that repeats itself


@dataclass(frozen=True, slots=True)
class Rollouts:
    """A question, its completions with the prefix that each was given, and what their rewards are."""

    problem: Problem
    prefixes: list[Sequence[int]]
    completions: list[Completion]
    texts: list[str]
    rewarded: Rewarded


def rollout_metrics(rollouts: Sequence[Rollouts], seconds: float) -> dict[str, float]:
    """Of all completions that were sampled, also of those in groups that were replaced."""
    rewarded = Rewarded.join([group.rewarded for group in rollouts])
    completions = [completion for group in rollouts for completion in group.completions]
    lengths = [len(completion.tokens) for completion in completions]
    return {
        **_reward_metrics(rewarded),
        "rollout/length": float(np.mean(lengths)),
        "rollout/length/max": float(max(lengths)),
        "rollout/cut_off": sum(completion.finish == "length" for completion in completions) / len(completions),
        "rollout/repetition": float(np.mean([repeated(completion.tokens, NGRAM) for completion in completions])),
        "rollout/equal_groups": sum(_is_flat(group.rewarded) for group in rollouts) / len(rollouts),
        "rollout/tokens": float(sum(lengths)),
        "rollout/seconds": seconds,
        "rollout/tokens_per_second": sum(lengths) / max(seconds, 1e-9),
        "entropy": -sum(sum(completion.logprobs) for completion in completions) / sum(lengths),
    }


def _reward_metrics(rewarded: Rewarded) -> dict[str, float]:
    """Means over graded rows; how judging went; and the signs of a reward that is being exploited."""
    graded, rows = rewarded.graded, len(rewarded.graded)
    faulty = [any(faults[i] is not None for faults in rewarded.faults.values()) for i in range(rows)]
    metrics = {
        "reward/mean": _mean(rewarded.total, graded),
        **{f"reward/{name}": _mean(scores, graded) for name, scores in rewarded.by_name.items()},
        "rollout/failed_grades": sum(faulty) / rows,
        "rollout/ungraded": 1 - int(graded.sum()) / rows,
    }
    answers = Counter(answer for answer in rewarded.answers if answer is not None)
    if answers:
        metrics["rollout/most_common_answer"] = answers.most_common(1)[0][1] / rows
    if rewarded.correct is not None:
        known = rewarded.known & graded
        right, wrong = known & rewarded.correct, known & ~rewarded.correct
        metrics["rollout/correct"] = _mean(rewarded.correct.double(), rewarded.known)
        if right.any() and wrong.any():
            metrics["reward/right_minus_wrong"] = _mean(rewarded.total, right) - _mean(rewarded.total, wrong)
    return metrics


def _mean(values: Tensor, among: Tensor) -> float:
    return float(values[among].sum()) / max(int(among.sum()), 1)


def _is_flat(rewarded: Rewarded) -> bool:
    rewards: Tensor = rewarded.total[rewarded.graded]
    return not len(rewards) or bool((rewards == rewards[0]).all())


def shown(rollouts: Sequence[Rollouts]) -> list[dict[str, Any]]:
    """The first completions, for a file and for people."""
    rows = [
        {
            "where": group.problem.where,
            "prompt": str(group.problem.columns["prompt"]),
            "completion": text,
            "reward": float(group.rewarded.total[i]),
            "rewards": {name: float(scores[i]) for name, scores in group.rewarded.by_name.items()},
            "faults": {name: faults[i] for name, faults in group.rewarded.faults.items() if faults[i] is not None},
            "correct": None if group.rewarded.correct is None else bool(group.rewarded.correct[i]),
            "graded": bool(group.rewarded.graded[i]),
            "tokens": len(completion.tokens),
            "finish": completion.finish,
        }
        for group in rollouts[:SHOWN]
        for i, (text, completion) in enumerate(zip(group.texts, group.completions, strict=True))
    ]
    return rows[:SHOWN]
