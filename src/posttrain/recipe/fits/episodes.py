"""What an environment asks of the rest of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posttrain.algorithms.options import AlgorithmConfig
from posttrain.environments.options import EnvironmentConfig
from posttrain.settings.data import DataConfig, EnvironmentSource
from posttrain.settings.data.collect import OfEpisodes, QuestionValue, Relabelling, key_of
from posttrain.settings.evaluation import EvalConfig
from posttrain.settings.rollout import RolloutConfig

if TYPE_CHECKING:
    from posttrain.estimator import Needs


def check_environment(
    environment: EnvironmentConfig | None,
    algorithm: AlgorithmConfig,
    data: DataConfig,
    rollout: RolloutConfig | None,
    evaluation: EvalConfig,
) -> None:
    """Refuses what has no meaning with an environment, or without one.

    Raises:
        ValueError: the key, and what to do.
    """
    sources = {"data.train": data.train, **{f"data.eval.{name}": source for name, source in data.eval.items()}}
    asking = [key for key, source in sources.items() if isinstance(source, EnvironmentSource)]
    if isinstance(data.demonstrations, EnvironmentSource):
        raise ValueError("data.demonstrations: an environment makes tasks, and no demonstrations: give path or hub")
    if evaluation.branch is not None:
        _check_branches(environment, evaluation)
    if environment is None:
        if asking:
            raise ValueError(
                f"{asking[0]}: it asks the environment for tasks, and there is none: add environment: {{name: …}}"
            )
        of_episodes = [number for number, step in enumerate(data.steps) if isinstance(step, OfEpisodes)]
        if of_episodes:
            key = key_of(of_episodes[0], data.collect)
            raise ValueError(f"{key}: it is made of episodes, and there is no environment: add environment: {{name: …}}")
        return
    if asking and not environment.makes_tasks:
        raise ValueError(f"{asking[0]}: the environment {environment.label} makes no tasks: give its rows, path: …")
    _check_collect(environment, data)
    if rollout is None:
        if not evaluation.samples and data.collect is None:
            raise ValueError("environment: nothing is played: add rollout, data.collect, or eval.samples")
        if environment.credit == "returns":
            raise ValueError("environment.credit: returns are of rollouts, and there are none: leave it out")
        if asking[:1] == ["data.train"] and data.collect is None:
            raise ValueError(
                "data.train: tasks of an environment are no rows to learn from: take what the start model makes of them, "
                "data.collect: {rejection_sampling: {k: 8, max_tokens: …}}, or an algorithm over rollouts"
            )
        return
    if environment.turn_tokens is not None and environment.turn_tokens > rollout.max_tokens:
        raise ValueError(
            f"environment.turn_tokens: {environment.turn_tokens} of a turn are more than rollout.max_tokens, "
            f"{rollout.max_tokens}, which is all that the policy writes in an episode"
        )
    kind = type(algorithm)
    if kind.beside_rollouts or kind.has_teacher or kind.takes_demonstrations:
        raise ValueError(
            f"environment: {algorithm.label} learns from more than rollouts and their rewards (a demonstration, a greedy "
            "answer, a value, a teacher), which episodes do not have: take one that learns from these alone"
        )
    if environment.credit == "returns" and kind.whole_rows:
        raise ValueError(
            f"environment.credit: returns are of turns, and {algorithm.label} makes its credit of whole answers: take grpo, "
            "dr_grpo, dapo or rloo, or credit: outcome"
        )
    for key, given in (("ahead", rollout.ahead), ("pairs", rollout.pairs), ("replay", rollout.replay)):
        if given:
            raise ValueError(f"rollout.{key}: it is of single answers; with an environment leave it out")


def _check_collect(environment: EnvironmentConfig, data: DataConfig) -> None:
    """What is made of episodes before training: one step, for their ids are kept, and no later step reads ids."""
    if data.collect is None:
        return
    [first, *_] = data.steps
    key = key_of(0, data.collect)
    if environment.mask_failed_calls:
        raise ValueError(
            f"environment.mask_failed_calls: it is of episodes that are learnt from as they are played, and not of "
            f"those that {key} makes: leave it out"
        )
    if data.generates:
        what = "rounds.data: accumulate" if data.earlier_rounds is not None else f"{key}, and every list of several steps,"
        raise ValueError(
            f"data.collect: {what} makes rows of text, and episodes are trained on by the ids that were sampled: take one of "
            "rif, rejection_sampling, relabel, pairs and feedback, in new rounds"
        )
    if isinstance(first, QuestionValue):
        raise ValueError(f"{key}: it is what a question is worth beside rollouts, which algorithms with episodes do not ask")
    if isinstance(first, Relabelling) and not environment.relabels:
        raise ValueError(
            f"{key}: the environment {environment.label} does not say which goal an episode did reach: take "
            "rejection_sampling"
        )
    if environment.turn_tokens is not None and environment.turn_tokens > first.max_tokens:
        raise ValueError(
            f"environment.turn_tokens: {environment.turn_tokens} of a turn are more than {key}.max_tokens, "
            f"{first.max_tokens}, which is all that the policy writes in an episode"
        )


def _check_branches(environment: EnvironmentConfig | None, evaluation: EvalConfig) -> None:
    if environment is None:
        raise ValueError("eval.branch: branches are of episodes, and there is no environment: leave it out")
    if not environment.forks:
        raise ValueError(
            f"eval.branch: the environment {environment.label} cannot be brought back to a state; of those that are built in "
            "calculator, grid, guess, sql and twenty can: leave it out, or take one of these"
        )
    if not evaluation.samples:
        raise ValueError("eval.branch: nothing is sampled: set eval.samples")


def check_played(environment: EnvironmentConfig | None, name: str, needs: Needs) -> None:
    """Refuses algorithms that ask for more than episodes and their rewards; those over rows may learn from these as they are.

    Raises:
        ValueError: what it asks for.
    """
    if environment is None:
        if needs.turns:
            raise ValueError(
                f"environment: {name} has turns paid one by one, and there are none: add environment: {{name: …}}"
            )
        return
    of_rows = not needs.rollouts
    asked = {
        "demonstrations": not of_rows and (needs.demonstration != "none" or needs.demonstrations or needs.branches),
        f"the baseline {needs.baseline}": needs.baseline != "none",
        "a teacher": needs.teacher != "none",
        "pairs": needs.pairs is not None,
    }
    for what, wanted in asked.items():
        if wanted:
            beside = "rows" if of_rows else "rollouts"
            raise ValueError(f"environment: {name} learns from {what} beside {beside}, which episodes do not have")
