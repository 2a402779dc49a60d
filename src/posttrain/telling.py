"""What a person is told once: by `tell`, from wherever something is seen; whoever runs decides where it goes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

log = logging.getLogger("posttrain")


@dataclass(frozen=True, slots=True)
class Told:
    """One sentence, under the name of its rule, and the step at which it was said (None: before the first)."""

    rule: str
    sentence: str
    step: int | None = None


@dataclass(frozen=True, slots=True)
class _Hearing:
    to: Callable[[Told], None] | None
    heard: list[Told] = field(default_factory=list[Told])

    def is_new(self, told: Told) -> bool:
        """Whether this sentence has not been heard; from now on it has."""
        if any((one.rule, one.sentence) == (told.rule, told.sentence) for one in self.heard):
            return False
        self.heard.append(told)
        if self.to is not None:
            self.to(told)
        return True


_hearings: ContextVar[tuple[_Hearing, ...]] = ContextVar("hearings", default=())


def tell(rule: str, sentence: str, step: int | None = None) -> None:
    """Says a sentence, by a warning of the logger `posttrain`: once while a `hearing` lasts, and each time outside of any."""
    news = [hearing.is_new(Told(rule, sentence, step)) for hearing in _hearings.get()]
    if all(news[:1]):
        log.warning("%s", sentence)


@contextmanager
def hearing(to: Callable[[Told], None] | None = None) -> Iterator[list[Told]]:
    """Keeps what is told in its body, in order, and hands each on, once. One inside of another hears what the other hears,
    and the sentence is said once in the outer one.
    """
    own = _Hearing(to)
    token = _hearings.set((*_hearings.get(), own))
    try:
        yield own.heard
    finally:
        _hearings.reset(token)
