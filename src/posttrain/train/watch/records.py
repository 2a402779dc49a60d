"""What happens in a run, told to listeners; and the files that they make of it."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.errors import CheckpointError
from posttrain.settings.training import SPENT
from posttrain.telling import Told
from posttrain.train.watch.redaction import shareable

HALF_CHARACTERS = "backslashreplace"  # a lone surrogate is written as its JSON escape, and read as the same


class JsonLines:
    """A file of one JSON object a line, each written whole and flushed; a last line that does not end is torn.
    Numbers that are not finite are null.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """Its objects, without a torn one; none where there is no file.

        Raises:
            CheckpointError: a line is no JSON.
        """
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.is_file() else ""
        *lines, _torn = text.split("\n")
        try:
            return [json.loads(line) for line in lines]
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{self.path} has a line that is no JSON: {error.doc[:60]!r}. Delete the line.") from None

    def of_steps(self) -> list[dict[str, Any]]:
        """Those of its objects that belong to a step; others are of `posttrain eval`. A null is NaN again."""
        steps = (record for record in self.read() if "step" in record)
        return [{name: math.nan if value is None else value for name, value in record.items()} for record in steps]

    def keep_until(self, step: int) -> None:
        """Drops the lines after a step, which a resumed run writes again."""
        if self.path.exists():
            self.rewrite(record for record in self.read() if record.get("step", step) <= step)

    def rewrite(self, records: Iterable[Mapping[str, Any]]) -> None:
        """These objects, and no others."""
        write(self.path, "".join(map(_line, records)))

    def append(self, record: Mapping[str, Any]) -> None:
        """One more object."""
        with _written(self.path), self.path.open("a", encoding="utf-8", errors=HALF_CHARACTERS) as file:
            file.write(_line(record))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(_plain(record), ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """A value whose numbers are JSON's: what is not finite is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


class Listener:
    """Is told what happens: a progress bar, a file. Subclasses override what they care for."""

    def on_stage(self, name: str, number: int, stages: int) -> None:
        """Before a stage of a recipe that has several."""

    def on_collected(self, path: Path, figures: Mapping[str, float]) -> None:
        """After every step of data that a model writes before training: its file, and how much was written."""

    def on_start(self, step: int, steps: int) -> None:
        """Before the first of this process's steps: where it begins, and where the run ends."""

    def on_mode(self, mode: str, ranks: int) -> None:
        """How the model is spread over how many ranks, once it is."""

    def on_rollouts(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Some completions that the step, and those after it up to the next collection, train on."""

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """After every optimizer step."""

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """After every evaluation."""


class RunFiles(Listener):
    """`metrics.jsonl`, one object per optimizer step, `eval.jsonl`, one per evaluation, `warnings.jsonl`, one for each
    sentence that was told, and the first completions of each collection in `completions/step-NNNNNN.jsonl`.
    """

    def __init__(self, folder: Path) -> None:
        self._steps, self._evaluations = JsonLines(folder / "metrics.jsonl"), JsonLines(folder / "eval.jsonl")
        self._warnings = JsonLines(folder / "warnings.jsonl")
        self._completions = folder / "completions"
        self._summed: int | None = None
        self._spent: dict[str, float] = {}

    def steps_until(self, step: int) -> dict[str, float]:
        """What the steps up to this one have spent together, for `Budget.share`: this process's and those before it."""
        if self._summed != step:
            lines = [line for line in self._steps.read() if line["step"] <= step]
            self._summed, self._spent = step, {name: sum(line[name] for line in lines) for name in SPENT}
        return self._spent

    def lines_until(self, step: int) -> list[dict[str, Any]]:
        """Steps and evaluations up to this step, in the order in which they were."""
        lines = [(line["step"], 0, line) for line in self._steps.of_steps()]
        lines += [(line["step"], 1, line) for line in self._evaluations.of_steps()]
        kept = [line for number, _, line in sorted(lines, key=lambda one: one[:2]) if number <= step]
        return [{name: value for name, value in line.items() if value == value} for line in kept]

    def resume_at(self, step: int) -> None:
        """Drops what the resumed run will write again; before the first step (-1), all."""
        self._summed = None
        if step < 0 and self._warnings.path.exists():
            self._warnings.rewrite([])
        self._warnings.keep_until(step)
        self._steps.keep_until(step)
        self._evaluations.keep_until(step)

    def warn(self, told: Told) -> None:
        """Writes what was told, without secrets; what is there stays as it is."""
        sentence = shareable(told.sentence)
        if not any((line["rule"], line["sentence"]) == (told.rule, sentence) for line in self._warnings.read()):
            at = {} if told.step is None else {"step": told.step}
            self._warnings.append({"rule": told.rule, "sentence": sentence, **at})

    def warnings(self) -> tuple[Told, ...]:
        """All that was told, by this process and those before it."""
        return tuple(Told(line["rule"], line["sentence"], line.get("step")) for line in self._warnings.read())

    def evaluate_again(self, step: int) -> None:
        """Drops the evaluation of a step that a run which goes on makes: another that went on from there may have made it."""
        self._evaluations.rewrite(record for record in self._evaluations.read() if record.get("step") != step)

    def on_rollouts(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        JsonLines(self._completions / f"step-{step:06d}.jsonl").rewrite({"step": step, **sample} for sample in samples)

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._steps.append({"step": step, **metrics})
        if self._summed == step - 1:
            self._summed, self._spent = step, {name: self._spent[name] + metrics[name] for name in SPENT}

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self._evaluations.append({"step": step, **metrics})


def write(path: Path, text: str) -> None:
    """A text file, by a rename.

    Raises:
        CheckpointError: it cannot be written.
    """
    unfinished = path.with_name(f"{path.name}.partial")
    with _written(path, unfinished):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8", errors=HALF_CHARACTERS)
        os.replace(unfinished, path)


@contextlib.contextmanager
def _written(path: Path, unfinished: Path | None = None) -> Iterator[None]:
    """Says which file cannot be written, and leaves nothing half of it."""
    try:
        yield
    except OSError as error:
        if unfinished is not None:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path} cannot be written: {error.strerror or error}. The last checkpoint is whole; make room, and the same "
            "command goes on from it."
        ) from error
