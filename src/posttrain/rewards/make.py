"""The rewards and graders that a recipe names."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.data.config import HubSource, PathSource, TaskSource
from posttrain.rewards.base import Verified, Weighted
from posttrain.rewards.config import RewardConfig
from posttrain.rewards.grading import GRADERS, Grader, MathVerify, TaskGrader

AnySource = PathSource | HubSource | TaskSource


def make_rewards(configs: Sequence[RewardConfig], source: AnySource) -> list[Weighted]:
    """The rewards of training on a source; a generated task's own verifier where none is named.

    Raises:
        SetupError: a grader does not start.
    """
    if not configs:
        configs = [RewardConfig(name="task", verdict=True)]
    if not any(config.verdict for config in configs):
        configs = [configs[0].model_copy(update={"verdict": True}), *configs[1:]]
    return [Weighted(Verified(one.name, _grader(one.name, source)), one.weight, one.verdict) for one in configs]


def make_grader(configs: Sequence[RewardConfig], source: AnySource) -> Grader:
    """The grader of an evaluation set: a task's own verifier, the verdict of the recipe's rewards, or math-verify.

    Raises:
        SetupError: it does not start.
    """
    if isinstance(source, TaskSource):
        return TaskGrader(source.task)
    named = [config for config in configs if config.name in GRADERS]
    chosen = next((config for config in named if config.verdict), named[0] if named else None)
    return GRADERS[chosen.name]() if chosen is not None else MathVerify()


def _grader(name: str, source: AnySource) -> Grader:
    return TaskGrader(source.task) if isinstance(source, TaskSource) and name == "task" else GRADERS[name]()
