"""The rewards and graders that a recipe names."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from posttrain.rewards.base import Weighted
from posttrain.rewards.grading import Grader, MathVerify
from posttrain.rewards.kinds._verified import OfAnswers
from posttrain.rewards.kinds.task import TaskReward, verifier
from posttrain.rewards.options import Judged, RewardConfig
from posttrain.settings.data import Generated, Mixture, Source


def with_verdict(configs: Sequence[RewardConfig]) -> list[RewardConfig]:
    """Marks the first reward that compares with a label, where none is marked."""
    first = next((i for i, one in enumerate(configs) if one.says_right and one.columns), None)
    if first is None or any(one.verdict for one in configs):
        return list(configs)
    return [one.model_copy(update={"verdict": True}) if i == first else one for i, one in enumerate(configs)]


def named(given: Sequence[RewardConfig], judged: Judged) -> list[RewardConfig]:
    """The rewards of training: a generated task's own verifier where none is named, and one of them for the verdict."""
    own = [TaskReward()] if isinstance(judged.source, Generated) else []
    return with_verdict(given or own)


def make_rewards(given: Sequence[RewardConfig], judged: Judged) -> list[Weighted]:
    """The rewards of training.

    Raises:
        SetupError: a grader, a function or a class does not start.
        RecipeError: a reward does not fit what it judges.
    """
    made: list[Weighted] = []
    with ExitStack() as started:
        for one in named(given, judged):
            reward = one.build(judged)
            started.callback(reward.close)
            made.append(Weighted(reward, one.weight, one.verdict, one.max_error_rate, one.deadline_of_group))
        started.pop_all()
    return made


class Graders:
    """The graders of evaluation sets, each started when it is first asked for, and once.

    Args:
        rewards: of the recipe, whose verdict grades where it reads answers.
    """

    def __init__(self, rewards: Sequence[RewardConfig]) -> None:
        graders = [one for one in rewards if isinstance(one, OfAnswers)]
        self._generated: list[Grader] = []
        chosen = next((one for one in graders if one.verdict), graders[0] if graders else None)
        self._make = chosen.grader if chosen is not None else MathVerify
        self._grader: Grader | None = None

    def of(self, source: Source | Mixture) -> Grader:
        """A task's own verifier, the verdict of the recipe's rewards, or math-verify.

        Raises:
            SetupError: it does not start.
        """
        if isinstance(source, Generated):
            self._generated.append(verifier(source))
            return self._generated[-1]
        if self._grader is None:
            self._grader = self._make()
        return self._grader

    def close(self) -> None:
        """Ends what was started."""
        for one in (*self._generated, *([] if self._grader is None else [self._grader])):
            one.close()
