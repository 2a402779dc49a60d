"""What a person sees: a progress bar on a terminal, plain lines elsewhere, and tables of what came out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from posttrain.execution.study.outcome import Outcome
from posttrain.telling import Told
from posttrain.train.watch.names import place_of
from posttrain.train.watch.records import Listener
from posttrain.train.watch.redaction import shareable

if TYPE_CHECKING:
    from posttrain.execution.study.continual.measures import Continual
    from posttrain.execution.study.paired import Paired

TABLE_ROWS, LINE = 6, 60  # completions in a table on the terminal, and characters of each
PLAIN_LINES = 20  # of a whole run, where there is no terminal


class ProgressView(Listener):
    """Follows a run: loss, reward, tokens/s and time left, and some completions now and then.

    Args:
        console: where it is shown.
        log_completions: collections between two tables of completions; 0: none.
        of_stages: the same for each stage of a recipe, by name.
    """

    def __init__(self, console: Console, log_completions: int = 0, of_stages: Mapping[str, int] | None = None) -> None:
        self._console, self._steps, self._started, self._loading = console, 0, time.monotonic(), time.monotonic()
        self._log_completions, self._of_stages, self._collections = log_completions, of_stages or {}, 0
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[shown]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._bar = self._progress.add_task("", total=None, shown="")

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def on_stage(self, name: str, number: int, stages: int) -> None:
        """Says which stage begins; the bar of the one before goes."""
        if self._progress.live.is_started:
            self._progress.stop()
        self._log_completions, self._loading = self._of_stages.get(name, 0), time.monotonic()
        self._console.print(f"stage {number} of {stages}: {name}")

    def on_mode(self, mode: str, ranks: int) -> None:
        """Says how the model is spread, where there are several processes."""
        if ranks > 1:
            self._console.print(f"{ranks} processes: {mode}")

    def on_collected(self, path: Path, figures: Mapping[str, float]) -> None:
        """Says what was written, how much of it is kept, and what it took."""
        shown = {name: f"{figures[name]:,.0f}" for name in ("questions", "answers", "tokens", "rows")}
        right = f", {figures['correct']:.0%} right" if "correct" in figures else ""
        self._console.print(
            f"{path.name}: {shown['questions']} questions, {shown['answers']} answers{right}, {shown['tokens']} tokens in "
            f"{figures['seconds']:.0f} s → {shown['rows']} rows",
            highlight=False,
            soft_wrap=True,
        )

    def on_start(self, step: int, steps: int) -> None:
        """Shows the bar."""
        self._steps, self._started, self._collections = steps, time.monotonic(), 0
        self._console.print(f"loaded in {self._started - self._loading:.0f} s", highlight=False)
        self._progress.update(self._bar, total=steps, completed=step, shown="")
        if self._console.is_terminal:
            self._progress.start()

    def on_rollouts(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Shows some, now and then."""
        if self._log_completions and self._collections % self._log_completions == 0:
            self._console.print(completions_table(step, samples))
        self._collections += 1

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Moves the bar, or prints a line now and then."""
        shown = _of_step(metrics)
        self._progress.update(self._bar, completed=step, shown=shown)
        every = max(1, self._steps // PLAIN_LINES)
        if not self._console.is_terminal and (step % every == 0 or step in (1, self._steps)):
            seconds = time.monotonic() - self._started
            self._console.print(f"step {step}/{self._steps}  {shown}  {seconds:.0f} s")

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Prints the numbers that matter most: a table with a row for each set, or a line for each where nobody looks."""
        sets = _by_set(metrics)
        if self._console.is_terminal and sets:
            self._console.print(sets_table(step, sets))
            return
        for name, values in sets.items():
            shown = "  ".join(f"{metric} {text}" for metric, text in values.items())
            self._console.print(f"evaluation at step {step}, {name}: {shown}", soft_wrap=True, highlight=False)


def _of_step(metrics: Mapping[str, float]) -> str:
    """Reward and length where there are rollouts; else the native objective, for the surrogate's value says little. What is
    not finite is not among a step's metrics.
    """
    speed = f"{metrics['train/tokens_per_second']:,.0f} tokens/s"
    if "rollout/length" in metrics:
        reward = f"{metrics['reward/mean']:.3f}" if "reward/mean" in metrics else "none"
        return f"reward {reward}  length {metrics['rollout/length']:.1f}  {speed}"
    native = next((name for name in ("loss", *metrics) if name.startswith("objective/")), "loss")
    return f"loss {metrics[native]:.4f}  {speed}" if native in metrics else f"loss not finite  {speed}"


def _by_set(metrics: Mapping[str, float]) -> dict[str, dict[str, str]]:
    """Of each evaluation set what is shown, with its interval."""
    sets: dict[str, dict[str, str]] = {}
    for name in metrics:
        if place_of(name) is not None:
            _, held_out, metric = name.split("/", 2)
            sets.setdefault(held_out, {})[metric] = _with_interval(metrics, name)
    return sets


def sets_table(step: int, sets: Mapping[str, Mapping[str, str]]) -> Table:
    """One evaluation: a row for each set, a column for each metric."""
    names = dict.fromkeys(name for values in sets.values() for name in values)
    table = Table(Column("set", no_wrap=True), *names, title=f"Evaluation at step {step}")
    for held_out, values in sets.items():
        table.add_row(Text(held_out), *(values.get(name, "") for name in names))
    return table


def evaluation_table(columns: Mapping[str, Mapping[str, float]]) -> Table:
    """Evaluation metrics at several points of a run, by title, with 95 % intervals where there are."""
    table = Table(Column(no_wrap=True), *columns, title="Evaluation", caption="in brackets: 95 % intervals")
    for name in sorted({name for metrics in columns.values() for name in metrics}):
        found = sum(name in metrics for metrics in columns.values())
        if place_of(name) is not None and found > 1:
            shown = [_with_interval(metrics, name) if name in metrics else "" for metrics in columns.values()]
            table.add_row(name.removeprefix("eval/"), *shown)
    return table


def runs_table(outcomes: Mapping[str, Outcome]) -> Table:
    """Runs beside each other: their last evaluations, and what they spent."""
    table = evaluation_table({name: outcome.after for name, outcome in outcomes.items()})
    table.title = "Runs"
    for name in ("steps", "tokens", "tokens_trained", "tokens_generated", "seconds"):
        table.add_row(name.replace("_", " "), *(f"{getattr(outcome, name):,.0f}" for outcome in outcomes.values()))
    return table


def pairs_table(pairs: Mapping[tuple[str, str, str], Paired]) -> Table:
    """Runs held against each other, problem by problem."""
    caption = (
        "shares of right answers, the first run less the second, on problems that both answered; 95 % bootstrap intervals; "
        "p of sign flips, with Holm's correction over all, and of McNemar's exact test for one answer each"
    )
    table = Table("set", "runs", "win, tie, lose", "difference", "p", "Holm", "McNemar", title="Pairs", caption=caption)
    for (name, one, other), found in pairs.items():
        difference = f"{found.difference:+.3g} [{found.low:+.3g}, {found.high:+.3g}]"
        ps = ("" if p is None else f"{p:.2g}" for p in (found.p, found.holm, found.mcnemar))
        counts = f"{found.won}, {found.tied}, {found.lost}"
        table.add_row(Text(name), Text(f"{one} less {other}"), counts, difference, *ps)
    return table


def matrix_table(name: str, found: Continual, stages: Sequence[str]) -> Table:
    """The accuracies of a run after each of its stages."""
    table = Table("", *(Column(Text(one)) for one in (*found.tasks, *found.general)), title=Text(f"{name}: pass@1"))
    for title, row in zip(("start", *(f"after {stage}" for stage in stages)), found.matrix, strict=True):
        table.add_row(Text(title), *(f"{value:.4g}" for value in row))
    return table


def continual_table(found: Mapping[str, Continual]) -> Table:
    """What runs over a sequence of tasks have kept."""
    from posttrain.execution.study.continual.measures import TOLD

    table = Table("", *(Column(Text(name)) for name in found), title="Over the sequence", caption=TOLD)
    metrics = {name: one.metrics for name, one in found.items()}
    for metric in dict.fromkeys(metric for one in metrics.values() for metric in one):
        table.add_row(metric, *(f"{one[metric]:.4g}" for one in metrics.values()))
    return table


def completions_table(step: int, samples: Sequence[Mapping[str, Any]]) -> Table:
    """The first completions of a step, shortened to a line each, without characters that a terminal would obey."""
    table = Table("prompt", "completion", "reward", "tokens", title=f"Rollouts of step {step}")
    for sample in _of_several(samples):
        reward = f"{sample['reward']:.3g}" if sample["graded"] else "not graded"
        length = f"{sample['tokens']}{'' if sample['finish'] == 'stop' else ', cut off'}"
        table.add_row(_line(sample["prompt"]), _line(sample["completion"]), reward, length)
    return table


def _of_several(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """As many as a table has rows, of as many questions as there are, those of one together."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        groups.setdefault(sample.get("where", ""), []).append(sample)
    each = max(2, TABLE_ROWS // max(1, len(groups)))
    return [sample for group in groups.values() for sample in group[:each]][:TABLE_ROWS]


def _line(text: str) -> Text:
    flat = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    return Text(flat if len(flat) <= LINE else f"{flat[: LINE // 2]} … {flat[-LINE // 2 :]}")


def _with_interval(metrics: Mapping[str, float], name: str) -> str:
    value = f"{metrics[name]:.4g}"
    if f"{name}/low" not in metrics:
        return value
    return f"{value} [{metrics[f'{name}/low']:.3g}, {metrics[f'{name}/high']:.3g}]"


def warnings_table(warnings: Sequence[Told]) -> Table:
    """What was told in a run, with its steps."""
    table = Table("step", "warning", title="Warnings", caption="warnings.jsonl in the run's folder has them")
    for told in warnings:
        table.add_row("" if told.step is None else str(told.step), Text(shareable(told.sentence)))
    return table


def plan_table(plan: Mapping[str, Any]) -> Table:
    """A resolved plan, a row for each entry."""
    table = Table(show_header=False, title="Plan")
    for name, value in plan.items():
        text = f"{value:,}" if isinstance(value, int) else "\n".join(value) if isinstance(value, list) else str(value)
        table.add_row(Text(name), Text(shareable(text) or "none"))
    return table
