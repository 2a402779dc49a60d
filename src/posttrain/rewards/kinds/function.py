"""A reward function of the user's, in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.isolated.child import ChildDied
from posttrain.rewards.isolated.pool import Pool


class Function:
    """TRL's form of a reward: `f(prompts, completions, **columns) -> list[float | None]`, by dotted path.

    It is called for each group, with lists of one entry for each completion: the prompt and the completion as text,
    `completion_ids`, and the columns of the row. It runs in a process of its own, which ends when the function hangs, and may
    keep what it likes from call to call there. None takes the row out of the loss (in TRL it counts as 0).

    Args:
        path: `package.module.function`, from an installed package or the working folder.
        deadline: seconds for a group.

    Raises:
        SetupError: it cannot be imported.
    """

    columns = ()

    def __init__(self, path: str, *, deadline: float) -> None:
        self.name = path.rpartition(".")[2]
        self._deadline = deadline
        command = [sys.executable, "-P", "-m", "posttrain.rewards.isolated.function_child", path]
        self._pool = Pool(command, what=f"The reward function {path}")

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`. A positive score counts as right, where the reward gives the verdict."""
        rows, withheld = len(group.completions), _no_json(group.columns)
        columns = {name: [value] * rows for name, value in group.columns.items() if name not in {"prompt", *withheld}}
        given: dict[str, Any] = {
            **columns,
            "prompts": [group.prompt] * rows,
            "completions": list(group.completions),
            "completion_ids": [list(tokens) for tokens in group.tokens],
        }
        try:
            reply = self._pool.ask({"given": given, "withheld": withheld}, self._deadline)
        except TimeoutError:
            return [Judgement.failed("timeout")] * rows
        except ChildDied:
            return [Judgement.failed("crash")] * rows
        if "error" in reply:
            return [Judgement.failed(reply["error"])] * rows
        return [Judgement(score, None if score is None else score > 0) for score in reply["scores"]]

    def close(self) -> None:
        """Ends the process."""
        self._pool.close()


def _no_json(columns: Mapping[str, Any]) -> dict[str, str]:
    """The columns that cannot be sent, with the type of each."""
    found: dict[str, str] = {}
    for name, value in columns.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            found[name] = type(value).__name__
    return found
