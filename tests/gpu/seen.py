"""What a rehearsal sees: kernels, waits for the device with their lines, products by their dtypes; each by its phase."""

from __future__ import annotations

import linecache
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import posttrain

PACKAGE, HERE = str(Path(posttrain.__file__).parent), str(Path(__file__).parent)
OTHER, STEP, SAMPLING, BESIDE = "other", "training step", "sampling", "beside the step"


@dataclass(frozen=True, order=True)
class Line:
    """A line of code by its file, its function and its text, which stay when lines are put before it.

    `called` is the function of another package that it was in, if it was in one.
    """

    at: str
    text: str
    called: str = ""

    def __str__(self) -> str:
        return f"{self.at}: `{self.text}`" + (f" (in {self.called})" if self.called else "")


@dataclass(frozen=True, order=True)
class Product:
    """A matrix product's dtypes, and whether it is one of more than a row with a column each: `summed` over several entries.
    logits: what it makes is as wide as the vocabulary.
    """

    of: str
    makes: str
    summed: bool
    logits: bool


@dataclass
class Seen:
    """Counts by phase. `vocabulary`: how wide logits are."""

    kernels: Counter[tuple[str, str]] = field(default_factory=Counter)
    waits: Counter[tuple[str, Line, str]] = field(default_factory=Counter)
    products: Counter[tuple[str, Product, Line]] = field(default_factory=Counter)
    attention: Counter[tuple[str, str]] = field(default_factory=Counter)
    steps: int = 0
    weights: set[str] = field(default_factory=set)
    vocabulary: int = 0
    phase: str = OTHER

    def clear(self) -> None:
        """Nothing was seen."""
        fresh = Seen()
        for name, value in vars(fresh).items():
            setattr(self, name, value)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """What is seen belongs to this phase."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def here(self) -> str:
        """The phase of this thread: another than the main one, that Python has started, works beside it."""
        thread = threading.current_thread()
        own = thread is threading.main_thread() or isinstance(thread, threading._DummyThread)  # of autograd
        return self.phase if own else BESIDE

    def wait(self, what: str) -> None:
        """The host waits for the device, in the line that asks for it now."""
        self.waits[self.here(), calling(), what] += 1

    def of_step(self, phase: str = STEP) -> int:
        """Kernels of one step."""
        return round(sum(n for (of, _), n in self.kernels.items() if of == phase) / max(self.steps, 1))


def calling() -> Line:
    """The innermost line of the package that is being run; where there is none, of whatever is neither torch nor this."""
    outside: FrameType | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            return _line(frame, "" if outside is None else _place(outside))
        if outside is None and not file.startswith((HERE, "<")) and "/torch/" not in file and "/threading.py" not in file:
            outside = frame
        frame = frame.f_back
    return Line("autograd", "a backward pass") if outside is None else _line(outside, "")


def _line(frame: FrameType, called: str) -> Line:
    return Line(_place(frame), linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip(), called)


def _place(frame: FrameType) -> str:
    file = frame.f_code.co_filename
    short = file[len(PACKAGE) + 1 :] if file.startswith(PACKAGE) else "/".join(Path(file).parts[-2:])
    return f"{short} {frame.f_code.co_qualname}"
