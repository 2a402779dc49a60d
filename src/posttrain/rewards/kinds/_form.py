r"""Whether a completion has the form that was asked for: an answer in \boxed{} that is mathematics, tags, or a pattern."""

from __future__ import annotations

from abc import ABC
from typing import Literal, Protocol

import regex
from pydantic import field_validator, model_validator

from posttrain.rewards.base import Judgement
from posttrain.rewards.grading import MathVerify
from posttrain.rewards.isolated.child import ChildDied
from posttrain.rewards.options import RewardConfig
from posttrain.rewards.reading.answers import after_thinking, last_box

PATTERN_DEADLINE = 1.0  # seconds of processor time for one completion
TAGS = (("<think>", "</think>"), ("<answer>", "</answer>"))


class Form(Protocol):
    """One form."""

    def answer(self, completion: str) -> str | None:
        """What stands in the form; None where the completion does not have it.

        Raises:
            TimeoutError, ChildDied: nobody knows.
        """
        ...

    def close(self) -> None:
        """Ends what was started."""
        ...


class Boxed:
    r"""The last \boxed{} after the last </think> holds mathematics, whole (arXiv:2505.19439, eq. 1 and A.8): `\boxed{}`,
    `\boxed{x +* 2}` and `\boxed{(0,1 }` do not. Read by math-verify's grammar, in a child process.
    """

    def __init__(self) -> None:
        self._reader = MathVerify()

    def answer(self, completion: str) -> str | None:
        """What is in the box."""
        rest = after_thinking(completion)
        inside = None if rest is None else last_box(rest)
        return inside if inside and self._reader.is_valid(inside) else None

    def close(self) -> None:
        """Ends the child."""
        self._reader.close()


class Tags:
    """<think>…</think> and then <answer>…</answer>, each once, nothing around or between them."""

    def answer(self, completion: str) -> str | None:
        """What is in the answer's tags."""
        rest, inside, outside = completion, "", list[str]()
        for begin, end in TAGS:
            before, _, rest = rest.partition(begin)
            inside, _, rest = rest.partition(end)
            outside.append(before)
        once = all(completion.count(tag) == 1 for pair in TAGS for tag in pair)
        return inside.strip() if once and not any(text.strip() for text in (*outside, rest)) else None

    def close(self) -> None:
        """Nothing was started."""


class Pattern:
    """A regular expression matches the whole completion.

    Args:
        pattern: in the syntax of the package `regex`, whose matching can be broken off; `.` matches a line's end too.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = regex.compile(pattern, regex.DOTALL)

    def answer(self, completion: str) -> str | None:
        """The first group of the pattern that has a text, or the whole completion."""
        match = self._pattern.fullmatch(completion, timeout=PATTERN_DEADLINE)
        if match is None:
            return None
        return next((group for group in match.groups() if group is not None), completion)

    def close(self) -> None:
        """Nothing was started."""


def in_form(form: Form, completion: str) -> Judgement:
    """1 with what stands in the form, 0 where a completion does not have it, a failure where nobody knows."""
    try:
        answer = form.answer(completion)
    except TimeoutError:
        return Judgement.failed("timeout")
    except ChildDied:
        return Judgement.failed("crash")
    return Judgement(float(answer is not None), answer=answer)


class OfForm(RewardConfig, ABC):
    """Of rewards that ask for a form."""

    form: Literal["boxed", "tags", "pattern"] = "boxed"
    r"""An answer in \boxed{} that is mathematics; <think>…</think> and then <answer>…</answer>; or `pattern`."""
    pattern: str | None = None
    """For form: pattern, a regular expression for the whole completion."""
    special_tokens: bool = False
    """Completions are read with all their special tokens, the one that ends them among them."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            regex.compile(pattern or "", regex.DOTALL)
        except regex.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _has_its_pattern(self) -> OfForm:
        if (self.form == "pattern") != (self.pattern is not None):
            raise ValueError("pattern: it goes with form: pattern")
        return self

    def made_form(self) -> Form:
        """The form, with what it needs started."""
        if self.pattern is not None:
            return Pattern(self.pattern)
        return Boxed() if self.form == "boxed" else Tags()
