"""What is logged of groups, and what is shown of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from posttrain.data.answers import AnswerText, prompt_text
from posttrain.rewards.rewarded import Rewarded
from posttrain.train.collect.groups import Rollouts

SHOWN, QUESTIONS = 16, 4  # completions of a collection that are kept to be read, and questions that they are of


def read_aside(seen: Sequence[Rollouts], kept: Sequence[Rollouts]) -> int:
    """Tokens, prompts included, of what was sampled and is no row of the groups that are kept: groups in whose place others
    came, and greedy answers.
    """
    there = {id(group) for group in kept}
    gone = ((group, [*group.sampled]) for group in seen if id(group) not in there)
    rows = sum(int(group.lengths[own].sum()) + len(own) * len(group.problem.prompt) for group, own in gone)
    greedy = [(group, group.baseline.tokens) for group in seen if group.baseline is not None]
    return rows + sum(len(group.problem.prompt) + tokens for group, tokens in greedy if tokens is not None)


def rollout_metrics(rollouts: Sequence[Rollouts], seconds: float) -> dict[str, float]:
    """Of all completions that were sampled, also of those in groups that were replaced; rewards of those without a prefix, or
    of all where each has one.
    """
    sampled = [(group, list(group.sampled)) for group in rollouts]
    lengths = [int(n) for group, rows in sampled for n in group.written[rows]]
    return {
        **_reward_metrics(_unaided(rollouts)),
        **_prefix_metrics(rollouts),
        **_baseline_metrics(rollouts),
        "rollout/length": float(np.mean(lengths)),
        "rollout/length/max": float(max(lengths)),
        "rollout/cut_off": sum(int(group.cut_off[rows].sum()) for group, rows in sampled) / len(lengths),
        "rollout/repetition": float(np.mean(np.concatenate([group.repetition[rows] for group, rows in sampled]))),
        **_same_metrics(rollouts),
        **_equal_metrics(rollouts),
        "rollout/tokens": float(sum(lengths)),
        "rollout/seconds": seconds,
        "rollout/tokens_per_second": sum(lengths) / max(seconds, 1e-9),
        "entropy": -sum(float(one) for group, rows in sampled for one in group.logprob[rows]) / sum(lengths),
    }


def _unaided(rollouts: Sequence[Rollouts]) -> Rewarded:
    """Of the rows without a prefix, or of all that were sampled where each has one."""
    some = any(group.plain for group in rollouts)
    return Rewarded.join([group.rewarded.take(group.plain if some else list(group.sampled)) for group in rollouts])


def _equal_metrics(rollouts: Sequence[Rollouts]) -> dict[str, float]:
    """The share of groups whose rewards are all equal, and equal their baseline, where there are rewards."""
    judged = bool(rollouts[0].rewarded.by_name)
    return {"rollout/equal_groups": sum(map(_is_flat, rollouts)) / len(rollouts)} if judged else {}


def _baseline_metrics(rollouts: Sequence[Rollouts]) -> dict[str, float]:
    """Of what questions are worth, where they are compared with that: of greedy answers, or of a column."""
    baselines = [group.baseline for group in rollouts if group.baseline is not None]
    known = [one.value for one in baselines if one.value is not None]
    lengths = [one.tokens for one in baselines if one.tokens is not None]
    name = "reward/greedy" if lengths else "reward/value"
    return {
        **({name: float(np.mean(known))} if known else {}),
        **({"rollout/greedy_length": float(np.mean(lengths))} if lengths else {}),
    }


def _same_metrics(rollouts: Sequence[Rollouts]) -> dict[str, float]:
    """The share of groups whose answers are all the same, of those that have several from the prompt alone."""
    compared = [{group.row(row).tobytes() for row in group.plain} for group in rollouts if len(group.plain) > 1]
    return {"rollout/identical_groups": sum(len(one) == 1 for one in compared) / len(compared)} if compared else {}


def branch_metrics(rollouts: Sequence[Rollouts]) -> dict[str, float]:
    """Of the groups that are trained on: which of them go on from a demonstration, how long it is, and which have no right
    rollout all the same.
    """
    lengths = [float(group.prefixes[0]) for group in rollouts if group.prefixes[0]]
    return {
        "rollout/branched": len(lengths) / len(rollouts),
        "rollout/unsolved_after_branches": sum(group.solved is False for group in rollouts) / len(rollouts),
        **({"rollout/branch_length": sum(lengths) / len(lengths)} if lengths else {}),
    }


def _prefix_metrics(rollouts: Sequence[Rollouts]) -> dict[str, float]:
    """Of rows that continue a prefix, where there are any; and the share of questions with a demonstration row."""
    pairs = [(group, row) for group in rollouts for row in group.sampled if group.prefixes[row]]
    metrics = {"rollout/demonstrated": sum(group.demonstrated for group in rollouts) / len(rollouts)}
    if pairs:
        right = [bool(group.rewarded.correct[row]) for group, row in pairs if group.rewarded.correct is not None]
        metrics = {
            "rollout/demonstrated": len({id(group) for group, _ in pairs}) / len(rollouts),
            "rollout/prefix_length": float(np.mean([group.prefixes[row] for group, row in pairs])),
            **({"rollout/correct_after_prefix": sum(right) / len(right)} if right else {}),
        }
    return metrics if metrics["rollout/demonstrated"] else {}


def _reward_metrics(rewarded: Rewarded) -> dict[str, float]:
    """Means over rows with a score; how judging went; and the signs of a reward that is being exploited."""
    if not rewarded.by_name:
        return {}
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


def _is_flat(group: Rollouts) -> bool:
    rewards: Tensor = group.rewarded.total[group.rewarded.graded]
    if not len(rewards):
        return True
    level = rewards[0] if group.baseline is None or group.baseline.value is None else group.baseline.value
    return bool((rewards == level).all())


def shown(rollouts: Sequence[Rollouts], text: AnswerText) -> list[dict[str, Any]]:
    """The first completions of the first questions, for a file and for people."""
    several = rollouts[:QUESTIONS] if sum(len(group.sampled) for group in rollouts[:QUESTIONS]) >= SHOWN else rollouts[:SHOWN]
    each = -(-SHOWN // len(several))
    return [_row(group, i, text) for group in several for i in list(group.sampled)[:each]][:SHOWN]


def _row(group: Rollouts, i: int, text: AnswerText) -> dict[str, Any]:
    judged, problem = group.rewarded, group.problem
    return {
        "where": problem.where,
        "prompt": prompt_text(problem.columns["prompt"]),
        "completion": group.episodes[i].transcript
        if group.episodes
        else text.of(problem.prompt, problem.columns, group.row(i)),
        "prefix_tokens": int(group.prefixes[i]),
        "reward": float(judged.total[i]),
        "rewards": {name: float(scores[i]) for name, scores in judged.by_name.items() if judged.scored[name][i]},
        "faults": {name: faults[i] for name, faults in judged.faults.items() if faults[i] is not None},
        "correct": bool(judged.correct[i]) if judged.correct is not None and bool(judged.known[i]) else None,
        "graded": bool(judged.graded[i]),
        "tokens": int(group.written[i]),
        "finish": "length" if group.cut_off[i] else "stop",
        **(group.episodes[i].shown() if group.episodes else {}),
    }
