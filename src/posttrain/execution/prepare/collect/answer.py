"""What was written for a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Said:
    """An answer as it comes: its text, its tokens, whether it came to its end, and what it goes on from that its row's prompt
    has already.
    """

    text: str
    tokens: int
    finished: bool
    begun: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its text, its tokens, whether it came to its end, whether it is right (None: nobody says), and why that
    could not be found out, where it failed.
    """

    text: str
    tokens: int
    finished: bool
    right: bool | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """The answers to one question, and what most of them answer, where that was asked for and is one answer."""

    where: str
    answers: Sequence[Answer]
    majority: str | None = None

    @property
    def right(self) -> int:
        """How many are right."""
        return sum(one.right is True for one in self.answers)

    @property
    def failed(self) -> int:
        """Of how many nobody knows whether they are, because judging failed."""
        return sum(one.fault is not None for one in self.answers)
