r"""Whether a completion has the form that was asked for: an answer in \boxed{} that is mathematics, tags, or a pattern."""

from __future__ import annotations

from typing import Protocol

import regex

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.child import ChildDied
from posttrain.rewards.grading import MathVerify, final_answer

PATTERN_DEADLINE = 1.0  # seconds for one completion
TAGS = (("<think>", "</think>"), ("<answer>", "</answer>"))


class Form(Protocol):
    """One form."""

    def has(self, completion: str) -> bool:
        """Whether the completion has it.

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

    def has(self, completion: str) -> bool:
        """See `Form`."""
        said = completion.rpartition("</think>")[2]
        return "\\boxed{" in said and self._reader.is_valid(final_answer(said[said.rindex("\\boxed{") :]))

    def close(self) -> None:
        """Ends the child."""
        self._reader.close()


class Tags:
    """<think>…</think> and then <answer>…</answer>, each once, nothing around or between them."""

    def has(self, completion: str) -> bool:
        """See `Form`."""
        rest, outside = completion, list[str]()
        for begin, end in TAGS:
            before, _, rest = rest.partition(begin)
            _, _, rest = rest.partition(end)
            outside.append(before)
        once = all(completion.count(tag) == 1 for pair in TAGS for tag in pair)
        return once and not any(text.strip() for text in (*outside, rest))

    def close(self) -> None:
        """Nothing was started."""


class Pattern:
    """A regular expression matches the whole completion.

    Args:
        pattern: in the syntax of the package `regex`, whose matching can be broken off.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = regex.compile(pattern, regex.DOTALL)

    def has(self, completion: str) -> bool:
        """See `Form`."""
        return self._pattern.fullmatch(completion, timeout=PATTERN_DEADLINE) is not None

    def close(self) -> None:
        """Nothing was started."""


class Format:
    """1 where a completion has the form, else 0."""

    name = "format"
    columns = ()

    def __init__(self, form: Form) -> None:
        self._form = form

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        return [self._one(completion) for completion in group.completions]

    def _one(self, completion: str) -> Judgement:
        has = form_of(self._form, completion)
        return Judgement.failed(has) if isinstance(has, str) else Judgement(float(has))

    def close(self) -> None:
        """See `Form`."""
        self._form.close()


def form_of(form: Form, completion: str) -> bool | str:
    """Whether a completion has a form, or why nobody knows."""
    try:
        return form.has(completion)
    except TimeoutError:
        return "timeout"
    except ChildDied:
        return "crash"
