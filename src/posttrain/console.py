"""What a person sees: a progress bar on a terminal, plain lines elsewhere, and tables of what came out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

PLAIN_LINES = 20  # of a whole run, where there is no terminal
SHOWN = ("/pass@", "/majority@", "/length", "/loss", "/nll", "/preference/accuracy", "/objective/")


class ProgressView:
    """Follows a run: loss, tokens/s and time left."""

    def __init__(self, console: Console) -> None:
        self._console, self._steps, self._started = console, 0, time.monotonic()
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:,.0f} tokens/s"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._bar = self._progress.add_task("", total=None, loss=float("nan"), rate=0.0)

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def on_start(self, step: int, steps: int) -> None:
        """Shows the bar."""
        self._steps, self._started = steps, time.monotonic()
        self._progress.update(self._bar, total=steps, completed=step)
        if self._console.is_terminal:
            self._progress.start()

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Moves the bar, or prints a line now and then."""
        native = next(
            (name for name in metrics if name.startswith("objective/")), "loss"
        )  # the surrogate's value says little
        loss, rate = metrics[native], metrics["train/tokens_per_second"]
        self._progress.update(self._bar, completed=step, loss=loss, rate=rate)
        every = max(1, self._steps // PLAIN_LINES)
        if not self._console.is_terminal and (step % every == 0 or step in (1, self._steps)):
            seconds = time.monotonic() - self._started
            self._console.print(f"step {step}/{self._steps}  loss {loss:.4f}  {rate:,.0f} tokens/s  {seconds:.0f} s")

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Prints the numbers that matter most."""
        shown = [f"{name.removeprefix('eval/')} {metrics[name]:.4f}" for name in metrics if _is_shown(name)]
        if shown:
            self._console.print(f"evaluation at step {step}: " + "  ".join(shown), soft_wrap=True)


def _is_shown(name: str) -> bool:
    return any(part in name for part in SHOWN) and "/loss/" not in name and not name.endswith(("/low", "/high"))


def before_and_after(start: Mapping[str, float], end: Mapping[str, float]) -> Table:
    """Evaluation metrics before training and after it, with 95 % intervals where there are."""
    table = Table("", "before", "after", title="Evaluation", caption="in brackets: 95 % intervals")
    for name in sorted(set(start) & set(end)):
        if name.startswith("eval/") and _is_shown(name):
            table.add_row(name.removeprefix("eval/"), _with_interval(start, name), _with_interval(end, name))
    return table


def _with_interval(metrics: Mapping[str, float], name: str) -> str:
    value = f"{metrics[name]:.4g}"
    if f"{name}/low" not in metrics:
        return value
    return f"{value} [{metrics[f'{name}/low']:.3g}, {metrics[f'{name}/high']:.3g}]"


def plan_table(plan: Mapping[str, Any]) -> Table:
    """A resolved plan, a row for each entry."""
    table = Table(show_header=False, title="Plan")
    for name, value in plan.items():
        text = f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(name, text or "none")
    return table
