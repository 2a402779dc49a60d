"""Trackers (Weights & Biases and others) as guests: they are told what they may know, and one that fails is told no more."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler

from posttrain.telling import tell
from posttrain.train.watch.records import Listener
from posttrain.train.watch.redaction import redacted, shareable
from posttrain.train.watch.tables import KINDS, Kind, Table, completions, evaluation

EVENTS = tuple(name for name in vars(TrainerCallback) if name.startswith("on_"))
DESCRIBING = ("on_train_begin", "on_log")  # events in which a tracker asks the arguments and the model what they are
TABLES = 50  # of completions in a run, at most: trackers keep each as a file, or write the whole of them again


class Guest(TrainerCallback):
    """A callback whose errors stay its own. What a run did is in metrics.jsonl, whatever becomes of a tracker."""

    def __init__(self, theirs: TrainerCallback) -> None:
        self.theirs, self._gone, self._began = theirs, False, False
        self._kind: Kind | None = KINDS.get(type(theirs).__name__)
        self._tables: list[Table] = []
        self.is_kept = False
        """Whether it is not told yet that training has ended, since more is to come."""
        self._end: partial[Any] | None = None
        for event in EVENTS:
            setattr(self, event, partial(self._forward, event))

    def show(self, table: Table) -> None:
        """Sends a table, as soon as the tracker has begun."""
        if self._kind is not None:
            self._tables.append(table)

    def let_go(self) -> None:
        """The end that was kept from it; and the end of its run, so that another stage's is one of its own."""
        self.is_kept = False
        if self._end is not None:
            self._end()
            if self._kind is not None:
                self._spared(self._kind.end, self.theirs)
        self._end = None

    def _forward(self, event: str, *arguments: Any, **options: Any) -> Any:
        if event == "on_train_end" and self.is_kept:
            self._end = partial(self._forward, event, *arguments, **options)
            return None
        return self._spared(self._told, event, *arguments, **options)

    def _told(self, event: str, *arguments: Any, **options: Any) -> Any:
        """An evaluation before the first step is no reason to begin without being told where: training is begun first."""
        if event == "on_log" and not self._began:
            self._told("on_train_begin", *arguments, **options)
        if event == "on_train_begin":
            if self._began:
                return None
            self._began = True
            for name, value in self._kind.environment.items() if self._kind is not None else ():
                os.environ.setdefault(name, value)
        described = (arguments[0], options.get("model")) if event in DESCRIBING and arguments else ()
        with _discreet(*described):
            answer = getattr(self.theirs, event)(*arguments, **options)
        while self._kind is not None and self._began and self._tables:
            self._kind.send(self.theirs, self._tables.pop(0))
        self._began = self._began and event != "on_train_end"
        return answer

    def _spared(self, told: Any, *arguments: Any, **options: Any) -> Any:
        if self._gone:
            return None
        try:
            return told(*arguments, **options)
        except Exception as error:
            self._gone = True
            tracker, kind = type(self.theirs).__name__.removesuffix("Callback"), type(error).__name__
            said = redacted(str(error))
            tell("tracker-failed", f"{tracker} failed ({kind}: {said}): it is told nothing more, and metrics.jsonl has all.")
            return None


class Trackers(Listener):
    """Makes guests of the callbacks that report to trackers, and sends them what transformers does not: completions, and
    evaluations with their intervals.
    """

    def __init__(self, handler: CallbackHandler, every: int) -> None:
        self._every, self._last = every, -1
        self._guests = list[Guest]()
        for i, callback in enumerate(handler.callbacks):
            if type(callback).__module__.startswith("transformers.integrations"):
                handler.callbacks[i] = Guest(callback)
                self._guests.append(handler.callbacks[i])

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """What comes after training, up to the end of its body, belongs to the same run of a tracker."""
        for guest in self._guests:
            guest.is_kept = True
        yield
        for guest in self._guests:
            guest.let_go()

    def on_start(self, step: int, steps: int) -> None:
        self._every, self._last = max(self._every, -(-steps // TABLES)), -1

    def on_rollouts(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        if (step - 1) // self._every != self._last:
            self._last = (step - 1) // self._every
            self._show(completions(step, samples))

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self._show(evaluation(step, metrics))

    def _show(self, table: Table) -> None:
        for guest in self._guests if table.rows else ():
            guest.show(table)


@contextlib.contextmanager
def _discreet(args: Any = None, model: Any = None) -> Iterator[None]:
    """While it is entered, arguments and the configs of a model describe themselves without secrets and the home folder."""
    adapters: list[Any] = list((getattr(model, "peft_config", None) or {}).values())
    bases = [one.base_model_name_or_path for one in adapters]
    described: list[Any] = [one for one in (args, getattr(model, "config", None)) if hasattr(one, "to_dict")]
    for one in described:
        values = shareable(one.to_dict())
        vars(one).update(to_dict=partial(dict, values), to_json_string=partial(_as_json, values))
    for one in adapters:
        one.base_model_name_or_path = shareable(one.base_model_name_or_path)
    try:
        yield
    finally:
        for one in described:
            del vars(one)["to_dict"], vars(one)["to_json_string"]
        for one, base in zip(adapters, bases, strict=True):
            one.base_model_name_or_path = base


def _as_json(values: Mapping[str, Any], *_: Any, **__: Any) -> str:
    return json.dumps(values, indent=2, default=str)
