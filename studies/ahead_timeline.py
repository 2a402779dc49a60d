"""What ran beside what in a run whose rollouts are sampled ahead, from the files of its folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.train.watch.records import JsonLines, Listener

CLOCK = "clock.jsonl"
WINDOW, COLUMNS = 20.0, 100  # seconds of a timeline, and its width


class Clock(Listener):
    """Notes when each step had its rollouts, and when it was done."""

    def __init__(self, folder: Path) -> None:
        self._file, self._took = JsonLines(folder / CLOCK), 0.0

    def on_rollouts(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Of the collection that the step begins."""
        self._took = time.time()

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """After the step."""
        self._file.append({"step": step, "took": self._took, "done": time.time()})


@dataclass(frozen=True)
class Span:
    """Of a step, in seconds since the epoch: when its rollouts were sampled, and when it was trained."""

    sampled: tuple[float, float]
    trained: tuple[float, float]


def spans(folder: Path) -> list[Span]:
    """Of the steps of a run."""
    found: list[Span] = []
    for clock, line in zip(JsonLines(folder / CLOCK).read(), JsonLines(folder / "metrics.jsonl").read(), strict=True):
        end = clock["took"] - line.get("rollout/ready_seconds", 0.0)
        seconds = line["rollout/seconds"] + line["rollout/sync_seconds"]
        found.append(Span((end - seconds, end), (clock["took"], clock["done"])))
    return found


def overlap(steps: Sequence[Span]) -> float:
    """The share of the time of training in which something was sampled."""
    both = sum(
        max(0.0, min(one.sampled[1], other.trained[1]) - max(one.sampled[0], other.trained[0]))
        for one in steps
        for other in steps
    )
    return both / sum(end - begin for begin, end in (one.trained for one in steps))


def timeline(steps: Sequence[Span]) -> str:
    """Two lines: which step is sampled for, and which one is trained; by its last digit."""
    begin = steps[len(steps) // 2].trained[0]
    lines = {"sampled": [" "] * COLUMNS, "trained": [" "] * COLUMNS}
    for number, step in enumerate(steps, 1):
        for name, line in lines.items():
            first, last = (round((at - begin) / WINDOW * COLUMNS) for at in getattr(step, name))
            for place in range(max(first, 0), min(last + (last == first), COLUMNS)):
                line[place] = str(number % 10)
    return "\n".join(f"    {name} {''.join(line)}".rstrip() for name, line in lines.items())
