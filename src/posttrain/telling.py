"""What a person is told once: by `tell`, from wherever something is seen; whoever runs decides where it goes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

log = logging.getLogger("posttrain")


@dataclass(frozen=True, slots=True)
class Told:
    """One sentence, under the name of its rule, and the step at which it was said (None: before the first)."""

    rule: str
    sentence: str
    step: int | None = None


_heard: ContextVar[list[Told] | None] = ContextVar("heard", default=None)


def tell(rule: str, sentence: str, step: int | None = None) -> None:
    """Says a sentence, once while one `hearing` lasts, and each time outside of any."""
    told, heard = Told(rule, sentence, step), _heard.get()
    if heard is not None:
        if any((one.rule, one.sentence) == (rule, sentence) for one in heard):
            return
        heard.append(told)
    log.warning("%s", sentence)


@contextmanager
def hearing() -> Iterator[list[Told]]:
    """Keeps what is told in its body, in order. Inside another one, it is part of that one."""
    heard = _heard.get()
    if heard is not None:
        yield heard
        return
    heard = list[Told]()
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)
