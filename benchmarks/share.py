"""The share of a training's time that is spent beside what any training must do.

Forward, backward, the optimizer's step, the engine and the rewards are timed at their outermost call; the rest of the time
from the end of the first step to the end of the last is overhead: collecting, collating, counts, losses, the norm of the
gradients, the schedule, metrics and files.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

PARTS = ("forward", "backward", "optimizer", "engine", "rewards")


class Stopwatch(TrainerCallback):
    """Seconds of each part, from the end of the first step on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[tuple[str, float]] = []
        self._from = self._to = 0.0

    def begin(self, part: str) -> None:
        """A part begins; within another it belongs to that one."""
        self._open.append((part, time.perf_counter()))

    def end(self) -> None:
        """The part that began last ends."""
        part, began = self._open.pop()
        if not self._open and self._from:
            self.seconds[part] += time.perf_counter() - began

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call with its time taken."""

        def call_timed(*arguments: Any, **options: Any) -> Any:
            self.begin(part)
            try:
                return call(*arguments, **options)
            finally:
                self.end()

        return call_timed

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Of transformers: there is an optimizer now."""
        inner = getattr(optimizer, "optimizer", optimizer)
        inner.register_step_pre_hook(lambda *_: self.begin("optimizer"))
        inner.register_step_post_hook(lambda *_: self.end())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Of transformers."""
        self._to = time.perf_counter()
        self._from = self._from or self._to

    @property
    def total(self) -> float:
        """Seconds from the end of the first step to that of the last."""
        return self._to - self._from


def measured(trainer: Any, *, engine: Any = None, reward: Any = None) -> dict[str, float]:
    """Trains, and gives the share of each part, and of `outside`, in the time of the steps from the second on."""
    watch = Stopwatch()
    model = trainer.model
    model.register_forward_pre_hook(lambda *_: watch.begin("forward"))
    model.register_forward_hook(lambda *_: watch.end(), always_call=True)
    trainer.accelerator.backward = watch.timed("backward", trainer.accelerator.backward)
    for owner, method, part in ((engine, "generate", "engine"), (engine, "sync", "engine"), (reward, "judge", "rewards")):
        if owner is not None:
            setattr(owner, method, watch.timed(part, getattr(owner, method)))
    trainer.add_callback(watch)
    trainer.train()
    shares = {part: watch.seconds[part] / watch.total for part in PARTS if part in watch.seconds}
    return {**shares, "outside": 1 - sum(shares.values())}
