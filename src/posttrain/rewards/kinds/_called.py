"""Rewards of a user's program, by object: a function in TRL's form, or anything that judges groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from posttrain.data.answers import is_conversation
from posttrain.errors import SetupError
from posttrain.rewards.base import Group, Judgement, Reward
from posttrain.rewards.values import Refused, listed, number


@dataclass(frozen=True, slots=True)
class Called:
    """A `Reward` of parts. It runs in this process: what it raises masks rows, and a deadline ends the wait, not the call."""

    name: str
    judges: Callable[[Group], Sequence[Judgement | float | None]]
    closes: Callable[[], None]
    columns: tuple[str, ...] = ()
    reads_anything: bool = True

    def judge(self, group: Group) -> Sequence[Judgement | float | None]:
        """See `Reward`."""
        return self.judges(group)

    def close(self) -> None:
        """See `Reward`."""
        self.closes()


def as_reward(given: Any) -> Reward:
    """An object with `judge` as it is, with a name and a `close` where it has none; a function in TRL's form.

    Raises:
        SetupError: it is neither.
    """
    if isinstance(given, str):
        raise SetupError(
            f"rewards: {given!r} is a name: pass a function f(prompts, completions, **columns), an object with judge(group), "
            "or one of posttrain's, Verified(…) for instance. Reward models by name are not there."
        )
    if inspect.isclass(given):
        raise SetupError(f"rewards: {given.__name__} is a class: pass an object of it, {given.__name__}(…).")
    if callable(getattr(given, "judge", None)):
        if hasattr(given, "name") and hasattr(given, "close"):
            return given
        return Called(
            getattr(given, "name", type(given).__name__),
            given.judge,
            getattr(given, "close", lambda: None),
            tuple(getattr(given, "columns", ())),
        )
    if hasattr(given, "parameters") and hasattr(given, "state_dict"):
        raise SetupError(f"rewards: {type(given).__name__} is a model: pass a function that asks it for scores.")
    if not callable(given):
        raise SetupError(f"rewards: {type(given).__name__} is neither a function nor an object with judge(group).")
    function = given if hasattr(given, "__name__") else getattr(given, "func", given)
    if inspect.iscoroutinefunction(function):
        raise SetupError(f"rewards: {function.__name__} is a coroutine: pass a function that gives its scores itself.")
    name = str(getattr(function, "__name__", type(function).__name__)).strip("<>")
    return Called(name, lambda group: in_trls_form(given, group), lambda: None)


def in_trls_form(function: Callable[..., Any], group: Group) -> list[Judgement]:
    """The judgements of a function f(prompts, completions, **columns) -> list[float | None].

    Raises:
        Refused: it asks for what is no column, or gives what is no score.
    """
    scores = listed(function(**accepted(function, trl_arguments(group))))
    known = [None if score is None else number(score) for score in scores]
    return [Judgement(score, None if score is None else score > 0) for score in known]


def trl_arguments(group: Group, *, special_tokens: bool = False) -> dict[str, Any]:
    """What TRL calls a reward function with: a list of an entry for each completion, under each name. And
    `beside`: whether it is none of what was sampled; and `episodes`, where an environment answers.
    """
    rows = len(group.completions)
    return {
        **{name: [value] * rows for name, value in group.columns.items() if name != "prompt"},
        "prompts": [_asked(group.columns["prompt"])] * rows,
        "completions": [_said(text, group.columns["prompt"]) for text in group.texts(special_tokens=special_tokens)],
        "completion_ids": [list(tokens) for tokens in group.tokens],
        "beside": [row >= rows - group.beside for row in range(rows)],
        **({"episodes": list(group.episodes)} if group.episodes else {}),
    }


def accepted(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that the function names, or all where it takes all.

    Raises:
        Refused: it needs one that is not there.
    """
    taken = inspect.signature(function).parameters
    if any(one.kind is Parameter.VAR_KEYWORD for one in taken.values()):
        return dict(given)
    for name, one in taken.items():
        if name not in given and one.default is Parameter.empty and one.kind is not Parameter.VAR_POSITIONAL:
            raise Refused(f"needs the parameter {name}, which is no column; there are {', '.join(given)}")
    return {name: value for name, value in given.items() if name in taken}


def _asked(prompt: Any) -> Any:
    """The prompt as TRL gives it: text, or messages without a turn that is continued."""
    if not is_conversation(prompt):
        return str(prompt)
    return list(prompt[:-1] if prompt[-1].get("role") == "assistant" else prompt)


def _said(text: str, prompt: Any) -> Any:
    return [{"role": "assistant", "content": text}] if is_conversation(prompt) else text
