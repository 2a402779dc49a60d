"""What an environment is: it answers text with messages. Token ids are never its business. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from posttrain.rewards.reading.arguments import Call

__all__ = [
    "FAILED",
    "Call",
    "Closes",
    "End",
    "Environment",
    "Forkable",
    "KeepsTime",
    "Message",
    "Relabelling",
    "Start",
    "Step",
    "Turn",
    "Unmoved",
]

Message = Mapping[str, Any]
"""A role and a content, as in conversations of the data; and the name of a tool, where it is a tool that answers. `error:
True` says that the turn's call failed; the policy does not see it."""
End = Literal["done", "max_turns", "max_tokens", "context", "invalid", "deadline", "fault"]
"""Why an episode ended: the environment said so; a limit of turns, of the policy's tokens, or of the context; too many turns
in a row without a call that could be read; or it failed, which is nobody's answer: `deadline` and `fault`."""
FAILED: frozenset[End] = frozenset(("deadline", "fault"))


@dataclass(frozen=True, slots=True)
class Start:
    """What the policy sees first. `tools` are JSON schemas, which the chat template is given; none for plain text."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """What the policy wrote. `text` is made of its ids, once; `thinking` is what stands before the end of its thoughts, where
    the format cuts them off, and is then not in `text`. A turn that was cut off (`finish` is length) has no calls.
    """

    text: str
    thinking: str | None = None
    calls: Sequence[Call] = ()
    finish: Literal["stop", "length"] = "stop"


@dataclass(frozen=True, slots=True)
class Step:
    """What came of a turn: others' words, none where it is over; and what the turn is paid, if anything.

    `info` is plain data for rewards and transcripts, and never seen by the policy; of the last step `correct` is the verdict
    and `answer` what was answered, where the environment knows them.
    """

    messages: Sequence[Message] = ()
    reward: float | None = None
    done: bool = False
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Environment(Protocol):
    """One object, one episode.

    What a bad call, an unknown tool or a wrong argument yields is a message: it is the policy's own fault, and graded. What
    an exception or a missed deadline yields is a failure: the row is masked and counted, and never graded 0.
    """

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        """The beginning, a function of the row's columns and the seed alone."""
        ...

    async def step(self, turn: Turn) -> Step:
        """What comes of a turn."""
        ...

    async def close(self) -> None:
        """Frees what it holds."""
        ...


@runtime_checkable
class KeepsTime(Protocol):
    """An environment that ends itself what takes too long, as one does that waits for a process with others: nobody else
    measures its calls.
    """

    @property
    def keeps_time(self) -> Literal[True]:
        """Says so."""
        ...


@runtime_checkable
class Closes(Protocol):
    """What makes environments and holds something for all of them, as processes, until the run ends."""

    def close(self) -> None:
        """Frees it."""
        ...


@runtime_checkable
class Relabelling(Protocol):
    """An environment that can say which goal an episode did reach, for hindsight."""

    async def relabel(self, columns: Mapping[str, Any], infos: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """The columns of a row whose goal is what a failed episode did reach; None where it reached none.

        The goal must stand in what is said first. The episode's turns are played again with these columns: it is kept up to
        the turn that reaches the goal, and left out if none does, or if something else is said on the way.

        Args:
            columns: that the episode's `reset` was given.
            infos: of its steps, in order.
        """
        ...


@runtime_checkable
class Forkable(Environment, Protocol):
    """One that can be brought back to where it was, so that several turns can be tried after the same ones."""

    def state(self) -> bytes:
        """Where it is, after `reset` or `step`."""
        ...

    def restore(self, state: bytes) -> None:
        """Brings it there; its row is the same."""
        ...


class Unmoved:
    """The two methods of `Forkable`, for an environment that no turn changes."""

    def state(self) -> bytes:
        """Nothing."""
        return b""

    def restore(self, state: bytes) -> None:
        """It is there."""
