"""What the tables of a study over a sequence of tasks have besides, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from posttrain.execution.study.continual.config import START, ContinualConfig
from posttrain.execution.study.continual.line import Point, above, line_of
from posttrain.execution.study.continual.measures import MEASURE, TOLD, over_tasks
from posttrain.execution.study.interval import cell
from posttrain.execution.study.matrix import Run
from posttrain.execution.study.outcome import Outcome

Outcomes = Mapping[Run, Outcome]


def told(continual: ContinualConfig) -> str:
    """What its measures are."""
    tasks = ", ".join(task.name for task in continual.tasks)
    return f"Every run trains on {tasks}, in this order, and is evaluated after each. {TOLD[0].upper()}{TOLD[1:]}."


def measures(continual: ContinualConfig, outcomes: Outcomes) -> dict[str, dict[Run, float]]:
    """Of each measure its values."""
    found = {run: over_tasks(continual, str(run.folder), outcome).metrics for run, outcome in outcomes.items()}
    names = next(iter(found.values()), {})
    return {name: {run: one[name] for run, one in found.items()} for name in names}


def average_before(continual: ContinualConfig, outcome: Outcome) -> float:
    """Of all tasks, at the start."""
    accuracies = [outcome.before[f"eval/{name}/{MEASURE}"] for name in continual.sets.values()]
    return sum(accuracies) / len(accuracies)


def sections(continual: ContinualConfig, algorithms: Sequence[str], baseline: str | None, outcomes: Outcomes) -> list[str]:
    """The accuracies after each task, and along the line, of the runs of one start model."""
    lines = _after_each(continual, algorithms, outcomes)
    return lines if continual.anchor is None else [*lines, *_along(continual, algorithms, baseline, outcomes)]


def _after_each(continual: ContinualConfig, algorithms: Sequence[str], outcomes: Outcomes) -> list[str]:
    rows = _matrices(continual, outcomes)
    titles = [*continual.sets.values(), *continual.general]
    first = [run for run in outcomes if run.algorithm == algorithms[0]]  # those of one seed begin from one model

    def cells(runs: Sequence[Run], at: int) -> str:
        return " | ".join(cell([rows[run][at][column] for run in runs]) for column in range(len(titles)))

    lines = ["", "pass@1 after each task:", "", f"| algorithm | after | {' | '.join(titles)} |"]
    lines += ["|" + "---|" * (len(titles) + 2), f"| *start* | | {cells(first, 0)} |"]
    for algorithm in algorithms:
        mine = [run for run in outcomes if run.algorithm == algorithm]
        for at, task in enumerate(continual.tasks, 1):
            lines.append(f"| {algorithm} | {task.name} | {cells(mine, at)} |")
    return lines


def _along(continual: ContinualConfig, algorithms: Sequence[str], baseline: str | None, outcomes: Outcomes) -> list[str]:
    assert continual.anchor is not None
    found = {run: line_of(continual, run, outcome) for run, outcome in outcomes.items()}
    origin = "the start" if continual.anchor.origin == START else f"the model after {continual.anchor.origin}"
    over = [] if baseline is None else [f"new, above the line of {baseline}"]
    said = (
        f"On the line of weights from {origin} (α = 0) to the last model (α = 1), which costs no training (WiSE-FT). Old is "
        f"the mean of {', '.join(continual.old)}; new, of {', '.join(continual.new)}."
    )
    if baseline is not None:
        said += (
            f" Above the line of {baseline}: how much more of the new a last model has than the best on that line, of its "
            "seed, that keeps as much of the old; if none does, than the one that keeps most."
        )
    titles = ["algorithm", "α", "old", "new", *over]
    lines = ["", said, "", f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for algorithm in algorithms:
        mine = [run for run in found if run.algorithm == algorithm]
        for at, point in enumerate(found[mine[0]]):
            cells = [cell([found[run][at].old for run in mine]), cell([found[run][at].new for run in mine])]
            if baseline is not None:
                cells.append(cell(_beyond(found, baseline, mine)) if point.alpha == 1 else "")
            lines.append(f"| {algorithm} | {point.alpha:g} | {' | '.join(cells)} |")
    return lines


def _beyond(found: Mapping[Run, Sequence[Point]], baseline: str, runs: Sequence[Run]) -> list[float]:
    theirs = {run.seed: line for run, line in found.items() if run.algorithm == baseline}
    return [above(found[run][-1], theirs[run.seed]) for run in runs if run.seed in theirs]


def _matrices(continual: ContinualConfig, outcomes: Outcomes) -> dict[Run, tuple[tuple[float, ...], ...]]:
    return {run: over_tasks(continual, str(run.folder), outcome).matrix for run, outcome in outcomes.items()}
