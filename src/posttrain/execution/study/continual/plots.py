"""A study's lines of models, as SVG: what is new over what is old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot

from posttrain.execution.study.continual.config import ContinualConfig
from posttrain.execution.study.continual.line import Point
from posttrain.execution.study.matrix import Run

matplotlib.use("svg")


def plot_lines(continual: ContinualConfig, lines: Mapping[Run, Sequence[Point]], path: Path) -> None:
    """A line for each algorithm, of means over seeds, with its last model as a filled point; seeds are thin."""
    figure, axis = pyplot.subplots(figsize=(7, 6))
    for i, algorithm in enumerate(dict.fromkeys(run.algorithm for run in lines)):
        seeds = np.array([[(one.old, one.new) for one in line] for run, line in lines.items() if run.algorithm == algorithm])
        for old, new in seeds.transpose(0, 2, 1):
            axis.plot(old, new, color=f"C{i}", alpha=0.25, linewidth=0.8)
        old, new = seeds.mean(0).T
        axis.plot(old, new, color=f"C{i}", marker="o", markerfacecolor="white", label=algorithm)
        axis.plot(old[-1:], new[-1:], color=f"C{i}", marker="o", markersize=9)
    axis.set_xlabel(f"pass@1, mean of {', '.join(continual.old)}")
    axis.set_ylabel(f"pass@1, mean of {', '.join(continual.new)}")
    axis.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "posttrain"}):
        figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
