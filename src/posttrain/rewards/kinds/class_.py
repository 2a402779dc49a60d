"""A reward class of yours, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.isolated.own import Own, no_json
from posttrain.rewards.kinds._own import OwnReward
from posttrain.rewards.options import Judged


class ClassReward(OwnReward):
    """A class of yours with judge(group), in a process of its own; needs --allow-code."""

    name: Literal["class"] = "class"

    def build(self, judged: Judged) -> OwnClass:
        """With its process started."""
        return OwnClass(self.path, deadline=self.deadline, options=self.options, name=self.label)


class OwnClass:
    """A `Reward` by path: an object of the class, made with `options`, judges in a process of its own.

    Its method `judge(group)` gives a `Judgement`, a score or None for each completion; its attribute `columns` names the
    columns of the data that must be there. What it keeps from call to call is lost when it hangs and its process is ended.

    Args:
        path: `file.py:Class`, or `package.module:Class` from an installed package or the working folder.
        deadline: seconds for a group.
        options: keyword arguments of the class.
        name: under which it is logged.

    Raises:
        SetupError: it cannot be loaded or made.
    """

    reads_anything = True

    def __init__(self, path: str, *, deadline: float, options: Mapping[str, Any], name: str) -> None:
        self.name = name
        self._own = Own("class", path, options, deadline)
        self.columns: tuple[str, ...] = tuple(self._own.ask({"columns": True}))

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        withheld = no_json(group.columns)
        sent = {
            "completions": list(group.completions),
            "tokens": [list(tokens) for tokens in group.tokens],
            "finished": list(group.finished),
            "raw": list(group.raw),
            "beside": group.beside,
            "episodes": list(group.episodes),
            "columns": {name: value for name, value in group.columns.items() if name not in withheld},
        }
        reply = self._own.ask({"group": sent, "withheld": withheld})
        if isinstance(reply, Judgement):
            return [reply] * len(group.completions)
        return [Judgement(*one) for one in reply["judgements"]]

    def close(self) -> None:
        """Ends the process."""
        self._own.close()
