"""A question's completions and what their rewards are; what is logged of them, and what is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from posttrain.data.answers import prompt_text
from posttrain.data.rows import Problem
from posttrain.rewards.kinds.repetition import repeated
from posttrain.rewards.rewarded import Rewarded
from posttrain.rollout.engine import Completion

SHOWN = 16  # completions of a collection that are kept to be read
NGRAM = 4  # tokens, for the share of a completion that repeats itself


@dataclass(frozen=True, slots=True)
class Rollouts:
    """A question's rows, each a prefix and what was sampled after it, and what their rewards are.

    `demonstrated`: the last row is the question's demonstration, all prefix.
    """

    problem: Problem
    prefixes: list[Sequence[int]]
    completions: list[Completion]
    texts: list[str]
    rewarded: Rewarded
    demonstrated: bool = False

    @property
    def sampled(self) -> range:
        """The rows that were sampled, in part at least."""
        return range(len(self.completions) - self.demonstrated)

    @property
    def plain(self) -> list[int]:
        """The rows that were sampled from the prompt alone."""
        return [row for row in self.sampled if not len(self.prefixes[row])]


def rollout_metrics(rollouts: Sequence[Rollouts], seconds: float) -> dict[str, float]:
    """Of all completions that were sampled, also of those in groups that were replaced; rewards of those without a prefix."""
    completions = [group.completions[row] for group in rollouts for row in group.sampled]
    lengths = [len(completion.tokens) for completion in completions]
    return {
        **_reward_metrics(Rewarded.join([group.rewarded.take(group.plain) for group in rollouts])),
        **_prefix_metrics(rollouts),
        "rollout/length": float(np.mean(lengths)),
        "rollout/length/max": float(max(lengths)),
        "rollout/cut_off": sum(completion.finish == "length" for completion in completions) / len(completions),
        "rollout/repetition": float(np.mean([repeated(completion.tokens, NGRAM) for completion in completions])),
        **_same_metrics(rollouts),
        "rollout/equal_groups": sum(_is_flat(group.rewarded) for group in rollouts) / len(rollouts),
        "rollout/tokens": float(sum(lengths)),
        "rollout/seconds": seconds,
        "rollout/tokens_per_second": sum(lengths) / max(seconds, 1e-9),
        "entropy": -sum(sum(completion.logprobs) for completion in completions) / sum(lengths),
    }


def _same_metrics(rollouts: Sequence[Rollouts]) -> dict[str, float]:
    """The share of groups whose answers are all the same, of those that have several from the prompt alone."""
    compared = [{group.completions[row].tokens for row in group.plain} for group in rollouts if len(group.plain) > 1]
    return {"rollout/identical_groups": sum(len(one) == 1 for one in compared) / len(compared)} if compared else {}


def _prefix_metrics(rollouts: Sequence[Rollouts]) -> dict[str, float]:
    """Of rows that continue a prefix, where there are any; and the share of questions with a demonstration row."""
    pairs = [(group, row) for group in rollouts for row in group.sampled if len(group.prefixes[row])]
    metrics = {"rollout/demonstrated": sum(group.demonstrated for group in rollouts) / len(rollouts)}
    if pairs:
        right = [bool(group.rewarded.correct[row]) for group, row in pairs if group.rewarded.correct is not None]
        metrics = {
            "rollout/demonstrated": len({id(group) for group, _ in pairs}) / len(rollouts),
            "rollout/prefix_length": float(np.mean([len(group.prefixes[row]) for group, row in pairs])),
            **({"rollout/correct_after_prefix": sum(right) / len(right)} if right else {}),
        }
    return metrics if metrics["rollout/demonstrated"] else {}


def _reward_metrics(rewarded: Rewarded) -> dict[str, float]:
    """Means over rows with a score; how judging went; and the signs of a reward that is being exploited."""
    graded, rows = rewarded.graded, len(rewarded.graded)
    faulty = [any(faults[i] is not None for faults in rewarded.faults.values()) for i in range(rows)]
    metrics = {
        **_mean_of("reward/mean", rewarded.total, graded),
        **({"reward/spread": float(rewarded.total[graded].max() - rewarded.total[graded].min())} if graded.any() else {}),
        "rollout/failed_grades": sum(faulty) / rows,
        "rollout/ungraded": 1 - int(graded.sum()) / rows,
    }
    for name, scores in rewarded.by_name.items():
        metrics.update(_mean_of(f"reward/{name}", scores, rewarded.scored[name]))
        failed = sum(fault is not None for fault in rewarded.faults[name])
        if failed:
            metrics[f"rollout/failed_grades/{name}"] = failed / rows
    answers = Counter(answer for answer in rewarded.answers if answer is not None)
    if answers:
        metrics["rollout/most_common_answer"] = answers.most_common(1)[0][1] / rows
    if rewarded.correct is not None:
        known = rewarded.known & graded
        right, wrong = known & rewarded.correct, known & ~rewarded.correct
        metrics.update(_mean_of("rollout/correct", rewarded.correct.double(), rewarded.known))
        if right.any() and wrong.any():
            metrics["reward/right_minus_wrong"] = float(rewarded.total[right].mean() - rewarded.total[wrong].mean())
    return metrics


def _mean_of(name: str, values: Tensor, among: Tensor) -> dict[str, float]:
    """Nothing where there is nothing to take a mean of."""
    return {name: float(values[among].mean())} if among.any() else {}


def _is_flat(rewarded: Rewarded) -> bool:
    rewards: Tensor = rewarded.total[rewarded.graded]
    return not len(rewards) or bool((rewards == rewards[0]).all())


def shown(rollouts: Sequence[Rollouts]) -> list[dict[str, Any]]:
    """The first completions, for a file and for people."""
    return [_row(group, i) for group in rollouts[:SHOWN] for i in group.sampled][:SHOWN]


def _row(group: Rollouts, i: int) -> dict[str, Any]:
    judged, completion = group.rewarded, group.completions[i]
    return {
        "where": group.problem.where,
        "prompt": prompt_text(group.problem.columns["prompt"]),
        "completion": group.texts[i],
        "prefix_tokens": len(group.prefixes[i]),
        "reward": float(judged.total[i]),
        "rewards": {name: float(scores[i]) for name, scores in judged.by_name.items() if judged.scored[name][i]},
        "faults": {name: faults[i] for name, faults in judged.faults.items() if faults[i] is not None},
        "correct": bool(judged.correct[i]) if judged.correct is not None and bool(judged.known[i]) else None,
        "graded": bool(judged.graded[i]),
        "tokens": len(completion.tokens),
        "finish": completion.finish,
    }
