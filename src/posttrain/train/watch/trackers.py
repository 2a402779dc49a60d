"""Trackers (Weights & Biases and others) as guests: one that fails is told nothing more, and the run goes on."""

from __future__ import annotations

from functools import partial
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler

from posttrain.telling import tell

EVENTS = tuple(name for name in vars(TrainerCallback) if name.startswith("on_"))


class Guest(TrainerCallback):
    """A callback whose errors stay its own. What a run did is in metrics.jsonl, whatever becomes of a tracker."""

    def __init__(self, theirs: TrainerCallback) -> None:
        self.theirs, self._gone = theirs, False
        for event in EVENTS:
            setattr(self, event, partial(self._forward, event))

    def _forward(self, event: str, *arguments: Any, **options: Any) -> Any:
        if self._gone:
            return None
        try:
            return getattr(self.theirs, event)(*arguments, **options)
        except Exception as error:
            self._gone = True
            tracker, kind = type(self.theirs).__name__.removesuffix("Callback"), type(error).__name__
            tell("tracker-failed", f"{tracker} failed ({kind}: {error}): it is told nothing more, and metrics.jsonl has all.")
            return None


def welcome(handler: CallbackHandler) -> None:
    """Makes guests of the callbacks that report to trackers."""
    handler.callbacks = [
        Guest(callback) if type(callback).__module__.startswith("transformers.integrations") else callback
        for callback in handler.callbacks
    ]
