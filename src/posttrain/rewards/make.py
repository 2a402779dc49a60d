"""The rewards and graders that a recipe names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from posttrain.errors import RecipeError, SetupError
from posttrain.rewards import config as configs
from posttrain.rewards.base import DEADLINE, Reward, Weighted
from posttrain.rewards.grading import GRADERS, Grader, MathVerify, TaskGrader
from posttrain.rewards.isolated.child import START_DEADLINE
from posttrain.rewards.kinds.countdown import Countdown
from posttrain.rewards.kinds.form import Boxed, Form, Format, Pattern, Tags
from posttrain.rewards.kinds.function import Function
from posttrain.rewards.kinds.length import FormatAndLength, Length, Overlong
from posttrain.rewards.kinds.majority import MajorityVote
from posttrain.rewards.kinds.repetition import Repetition
from posttrain.rewards.kinds.verified import Verified
from posttrain.settings.data import HubSource, PathSource, TaskSource

AnySource = PathSource | HubSource | TaskSource
MARGIN = START_DEADLINE + 10.0  # seconds after which a function's process has started anew, and was ended at its own deadline
Builder = Callable[[Any, AnySource, int], Reward]


def named(given: Sequence[configs.AnyReward]) -> list[configs.AnyReward]:
    """The rewards of training: a generated task's own verifier where none is named, and one of them for the verdict."""
    return configs.with_verdict(list(given) or [configs.TaskReward(name="task")])


def check_code(given: Sequence[configs.AnyReward], *, allow_code: bool) -> None:
    """Refuses code of the recipe's, unless it is allowed.

    Raises:
        SetupError: names it.
    """
    paths = [one.path for one in given if isinstance(one, configs.FunctionReward)]
    if paths and not allow_code:
        raise SetupError(
            f"The recipe runs code: {', '.join(paths)}. Who trusts it says --allow-code (in Python: allow_code=True of run)."
        )


def make_rewards(given: Sequence[configs.AnyReward], source: AnySource, *, max_tokens: int) -> list[Weighted]:
    """The rewards of training on a source, whose completions have at most `max_tokens`.

    Raises:
        SetupError: a grader or a function does not start.
        RecipeError: a reward does not fit `max_tokens`.
    """
    made: list[Weighted] = []
    with ExitStack() as started:
        for one in named(given):
            reward = BUILDERS[one.name](one, source, max_tokens)
            started.callback(reward.close)
            deadline = one.deadline + MARGIN if isinstance(one, configs.FunctionReward) else DEADLINE
            made.append(Weighted(reward, one.weight, one.verdict, one.max_error_rate, deadline))
        started.pop_all()
    return made


def make_grader(given: Sequence[configs.AnyReward], source: AnySource) -> Grader:
    """The grader of an evaluation set: a task's own verifier, the verdict of the recipe's rewards, or math-verify.

    Raises:
        SetupError: it does not start.
    """
    if isinstance(source, TaskSource):
        return TaskGrader(source.task)
    graders = [one for one in given if one.name in GRADERS]
    chosen = next((one for one in graders if one.verdict), graders[0] if graders else None)
    return GRADERS[chosen.name]() if chosen is not None else MathVerify()


def _grader(name: str | None, source: AnySource) -> Grader:
    if isinstance(source, TaskSource) and name in (None, "task"):
        return TaskGrader(source.task)
    return GRADERS[name or "math_verify"]()


def _verified(one: Any, source: AnySource, max_tokens: int) -> Reward:
    return Verified(one.name, _grader(one.name, source))


def _form(one: Any) -> Form:
    if one.form == "pattern":
        return Pattern(one.pattern)
    return Boxed() if one.form == "boxed" else Tags()


def _length(one: Any, max_tokens: int) -> Length:
    return Length(max_length=one.max_length or max_tokens, peak=one.peak, shape=one.shape)


def _overlong(one: configs.OverlongReward, source: AnySource, max_tokens: int) -> Reward:
    longest = one.max_length or max_tokens
    if one.cache is not None and one.cache >= longest:
        raise RecipeError(f"rewards: overlong: cache: {one.cache} is not below rollout.max_tokens: {max_tokens}")
    return Overlong(max_length=longest, cache=one.cache or max(1, longest // 5))


BUILDERS: dict[str, Builder] = {
    "math_verify": _verified,
    "exact_match": _verified,
    "task": _verified,
    "countdown": lambda one, source, max_tokens: Countdown(),
    "majority_vote": lambda one, source, max_tokens: MajorityVote(_grader(one.reads, source)),
    "format": lambda one, source, max_tokens: Format(_form(one)),
    "length": lambda one, source, max_tokens: _length(one, max_tokens),
    "format_length": lambda one, source, max_tokens: FormatAndLength(
        _form(one), _length(one, max_tokens), format_weight=one.format_weight
    ),
    "overlong": _overlong,
    "repetition": lambda one, source, max_tokens: Repetition(n=one.n),
    "function": lambda one, source, max_tokens: Function(one.path, deadline=one.deadline),
}
