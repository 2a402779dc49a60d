"""Of a conversation the turns of some roles are learnt, and those of the others are read.

α-UMi (Small LLMs Are Weak Tool Learners: A Multi-LLM Agent, arXiv:2401.07324): one model is trained on the turns of planner,
caller and summariser, and three copies of it are then trained further, each on the turns of one. The masks of all roles have
no token in common, and together are the mask without roles.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Annotated, Literal

from pydantic import Field

from posttrain.data.rows import BadRow
from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig, usable
from posttrain.data.transforms._turns import is_learnt, messages_of, without
from posttrain.telling import tell


class Roles(TransformConfig):
    """Of a conversation the assistant's turns of some roles alone carry loss; a turn's role is its `name`."""

    name: Literal["roles"] = "roles"
    roles: Annotated[list[str], Field(min_length=1)]
    """Whose turns are learnt, such as [planner]: messages are {role: assistant, name: planner, content: …}."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The conversation."""
        return ("messages",)

    def build(self, rows: Rows) -> Transform:
        """Knows all roles that there are.

        Raises:
            BadRow: no turn is of one that is named.
        """
        turns = Counter(role for found in usable(rows, _roles) for role in found)
        lacking = [role for role in self.roles if role not in turns]
        if turns and lacking:
            there = ", ".join(f"{role or '(no name)'}: {number}" for role, number in turns.most_common())
            raise BadRow(f"no turn of the assistant has the name {lacking[0]}; their names, and how many turns: {there}")
        learnt = sum(turns[role] for role in self.roles)
        tell("roles", f"Of {turns.total()} turns of the assistant {learnt} are learnt, those of {', '.join(self.roles)}.")
        reason = f"it has no turn of {', '.join(self.roles)}"

        def of_roles(record: Record, rng: Random) -> list[Columns]:
            messages = messages_of(record.columns)
            return without(record, messages, lambda number: messages[number].get("name") not in self.roles, reason)

        return of_roles


def _roles(columns: Columns) -> list[str]:
    return [str(message.get("name") or "") for message in messages_of(columns) if is_learnt(message)]
