"""A study's plots, as SVG: every quantity over the tokens of its steps, a line for each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.lines import Line2D

from posttrain.execution.study.matrix import Run
from posttrain.execution.study.outcome import over_tokens

matplotlib.use("svg")

WATCHED = {
    "train/demonstrated": "share of demonstrated tokens",
    "entropy": "entropy of sampled tokens, nats",
    "rollout/length": "tokens of a rollout",
    "rollout/correct": "right rollouts",
}
SMOOTHED = 10  # steps of a running mean


def plot(runs: Sequence[Run], sets: Sequence[str], path: Path) -> None:
    """Held-out accuracy of every set, and what was watched in training, of the runs of one start model."""
    panels = {f"eval/{name}/pass@1": f"pass@1, {name}" for name in sets} | WATCHED
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(run.algorithm for run in runs))}
    figure, axes = pyplot.subplots((len(panels) + 2) // 3, 3, figsize=(15, 4 * ((len(panels) + 2) // 3)), squeeze=False)
    for run in runs:
        steps, evaluations = over_tokens(run.folder)
        for axis, key in zip(axes.flat, panels, strict=False):
            lines = evaluations if key.startswith("eval/") else steps
            _draw(axis, [line for line in lines if key in line], key, colours[run.algorithm])
    for axis, title in zip(axes.flat, panels.values(), strict=False):
        axis.set_title(title)
        axis.set_xlabel("tokens of the steps' rows")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    handles = [Line2D([], [], color=colour) for colour in colours.values()]
    figure.legend(handles, list(colours), loc="lower right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "posttrain"}):
        figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _draw(axis: Any, lines: Sequence[Mapping[str, Any]], key: str, colour: str) -> None:
    values = [line[key] for line in lines]
    if not key.startswith("eval/"):
        values = [sum(values[max(0, i - SMOOTHED + 1) : i + 1]) / min(i + 1, SMOOTHED) for i in range(len(values))]
    axis.plot([line["tokens"] for line in lines], values, color=colour, alpha=0.6, linewidth=1)
