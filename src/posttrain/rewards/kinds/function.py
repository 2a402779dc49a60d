"""A reward function of yours, in TRL's form, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.isolated.own import Own, no_json
from posttrain.rewards.kinds._called import trl_arguments
from posttrain.rewards.kinds._own import OwnReward
from posttrain.rewards.options import Judged
from posttrain.settings.doors.code import object_name


class FunctionReward(OwnReward):
    """A function of yours, in TRL's form, in a process of its own; needs --allow-code."""

    name: Literal["function"] = "function"
    special_tokens: bool = False
    """It is given completions with all their special tokens, the one that ends them among them."""

    def build(self, judged: Judged) -> Function:
        """With its process started."""
        return Function(
            self.path,
            deadline=self.deadline,
            options=self.options,
            name=self.label,
            special_tokens=self.special_tokens,
        )


class Function:
    """TRL's form of a reward: `f(prompts, completions, **columns) -> list[float | None]`, by path.

    It is called for each group, with lists of one entry for each completion: the prompt and the completion, `completion_ids`,
    `beside`, which is true of one that is none of what was sampled (the greedy answer of remax), and the columns of the row.
    Prompt and completion are text, or, where the row's prompt is a conversation, lists of messages: a turn of the assistant
    that ends the prompt, and is continued, is the beginning of the completion. It runs in a process of its own, which ends
    when the function hangs, and may keep what it likes from call to call there. None takes the row out of the loss (in TRL it
    counts as 0).

    Args:
        path: `file.py:function`, or `package.module.function` from an installed package or the working folder.
        deadline: seconds for a group.
        options: more keyword arguments, which take the place of columns of their names.
        name: under which it is logged; the function's own if not given.
        special_tokens: completions keep all of theirs.

    Raises:
        SetupError: it cannot be loaded.
    """

    columns, reads_anything = (), True

    def __init__(
        self,
        path: str,
        *,
        deadline: float,
        options: Mapping[str, Any] = {},
        name: str | None = None,
        special_tokens: bool = False,
    ) -> None:
        self.name, self._special_tokens = name or object_name(path), special_tokens
        self._own = Own("function", path, options, deadline)

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`. A positive score counts as right, where the reward gives the verdict."""
        rows, withheld = len(group.completions), no_json(group.columns)
        given = trl_arguments(group, special_tokens=self._special_tokens)
        given = {name: value for name, value in given.items() if name not in withheld}
        reply = self._own.ask({"given": given, "withheld": withheld})
        if isinstance(reply, Judgement):
            return [reply] * rows
        return [Judgement(score, None if score is None else score > 0) for score in reply["scores"]]

    def close(self) -> None:
        """Ends the process."""
        self._own.close()
