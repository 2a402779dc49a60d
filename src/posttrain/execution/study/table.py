"""A study's tables: means over seeds with 95 % intervals, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from posttrain.execution.study.config import StudyConfig
from posttrain.execution.study.continual.tables import average_before, measures, sections, told
from posttrain.execution.study.interval import cell
from posttrain.execution.study.matrix import Run
from posttrain.execution.study.outcome import Outcome

Value = Callable[[Run], float | None]
Outcomes = Mapping[Run, Outcome]


def tables(study: StudyConfig, outcomes: Outcomes) -> str:
    """One table for each start model, with what all its runs had in common above it."""
    lines = [_in_common(study)]
    for start in study.starts:
        of_start = {run: outcome for run, outcome in outcomes.items() if run.start == start}
        columns = _columns(study, of_start)
        before = _before(study, _first_of_each_seed(of_start))
        lines += ["", f"### Start: {start}", ""]
        lines += ["| algorithm | learning rate | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 2)]
        lines.append(f"| *start* | | {' | '.join(before)} |" + " |" * (len(columns) - len(before)))
        for algorithm in study.algorithms:
            mine = [run for run in of_start if run.algorithm == algorithm]
            cells = [cell([value(run) for run in mine]) for value in columns.values()]
            lines.append(f"| {algorithm} | {_rate(study, mine[0].learning_rate)} | " + " | ".join(cells) + " |")
        if study.continual is not None:
            lines += sections(study.continual, list(study.algorithms), study.baseline, of_start)
    return "\n".join(lines) + "\n"


def _before(study: StudyConfig, outcomes: Sequence[Outcome]) -> list[str]:
    """The first cells of the start's row; of a sequence of tasks the average alone can be told of it."""
    if study.continual is not None:
        return [cell([average_before(study.continual, outcome) for outcome in outcomes])]
    return [cell([outcome.before.get(f"eval/{name}") for outcome in outcomes]) for name in _rated(study)]


def _in_common(study: StudyConfig) -> str:
    budget = (
        f"{study.budget.tokens:,} tokens, of all rows of its steps"
        if study.budget.tokens
        else f"{study.budget.seconds:g} s of steps"
    )
    rates, seeds = (", ".join(f"{value:g}" for value in values) for values in (study.tuning.learning_rates, study.seeds))
    tuned = ", ".join(map(str, study.tuning.seeds))
    said = (
        f"Every run may spend {budget}. Mean over seeds {seeds} ± half of the 95 % t-interval. The learning rate of each "
        f"algorithm is the best of {rates} by {' and '.join(study.tuning.metrics)}, on seeds {tuned}, which are not "
        "reported; an arrow says that it is the least or the greatest of these."
    )
    against = f" After a minus stands what {study.baseline} reached from the same start: the interval is of the differences."
    said += against if study.baseline is not None else ""
    return said if study.continual is None else f"{said} {told(study.continual)}"


def _rate(study: StudyConfig, rate: float) -> str:
    rates = study.tuning.learning_rates
    at_an_end = len(rates) > 1 and {min(rates): " ↓", max(rates): " ↑"}.get(rate)
    return f"{rate:g}{at_an_end or ''}"


def _rated(study: StudyConfig) -> list[str]:
    """pass@1 of every evaluation set that nothing was chosen by, then pass@k."""
    seen = {metric.partition("/")[0] for metric in study.tuning.metrics}
    sets = [name for name in study.recipe["data"]["eval"] if name not in seen]
    ks = study.recipe.get("eval", {}).get("k", [])
    return [f"{name}/pass@{k}" for k in (1, *(k for k in ks if k != 1)) for name in sets]


def _columns(study: StudyConfig, outcomes: Outcomes) -> dict[str, Value]:
    """Of the runs of one start; what none of them has measured is left out."""

    def after(name: str) -> Value:
        return lambda run: outcomes[run].after.get(f"eval/{name}")

    def of_drift(name: str) -> Value:
        return lambda run: outcomes[run].drift.get(name)

    def watched(name: str) -> Value:
        return lambda run: outcomes[run].watched.get(name)

    rated, sets = _rated(study), study.recipe["data"]["eval"]
    held: dict[str, Value] = {name.replace("/", " "): after(name) for name in rated}
    against = [name for name in held if name.endswith(" pass@1")]
    if study.continual is not None:
        held = {name: values.get for name, values in measures(study.continual, outcomes).items()}
        against = [*held]
    evaluated = [name for name in study.shown if name.partition("/")[0] in sets]
    columns = held | {name.replace("/", " ", 1): after(name) for name in evaluated}
    if study.baseline is not None:
        for title in [*against, *(name.replace("/", " ", 1) for name in evaluated)]:
            columns[f"{title} - {study.baseline}"] = partial(_beyond, columns[title], study.baseline, list(outcomes))
    if study.earlier is not None:
        name = f"eval/{study.earlier}/pass@1"
        columns[f"{study.earlier}, after - before"] = lambda run: outcomes[run].after[name] - outcomes[run].before[name]
    columns |= {f"{name}, over steps": watched(name) for name in study.shown if name not in evaluated}
    columns |= {
        "length": after(f"{study.drift or next(iter(sets))}/length"),
        "entropy": of_drift("entropy"),
        "KL from start, nats per answer": of_drift("kl_per_answer"),
        "demonstrated share": lambda run: outcomes[run].demonstrated,
        "steps": lambda run: outcomes[run].steps,
        "tokens of its rows": lambda run: outcomes[run].tokens,
        "tokens trained": lambda run: outcomes[run].tokens_trained,
        "tokens generated": lambda run: outcomes[run].tokens_generated,
        "seconds": lambda run: outcomes[run].seconds,
    }
    return {name: value for name, value in columns.items() if any(value(run) is not None for run in outcomes)}


def _beyond(value: Value, baseline: str, runs: Sequence[Run], run: Run) -> float | None:
    """What a run has more than the baseline's of the same seed; nothing for the baseline itself."""
    theirs = next((value(other) for other in runs if other.algorithm == baseline and other.seed == run.seed), None)
    mine = value(run)
    return None if run.algorithm == baseline or mine is None or theirs is None else mine - theirs


def _first_of_each_seed(outcomes: Outcomes) -> list[Outcome]:
    first: dict[int, Outcome] = {}
    for run, outcome in outcomes.items():
        first.setdefault(run.seed, outcome)
    return list(first.values())
