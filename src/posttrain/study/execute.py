"""Runs a study: start models, then the runs that learning rates are chosen by, then those that are reported."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from posttrain.errors import NonFiniteError
from posttrain.metrics import write
from posttrain.recipe import Recipe
from posttrain.study.config import StudyConfig
from posttrain.study.matrix import Matrix, Run
from posttrain.study.outcome import Outcome
from posttrain.study.plots import plot
from posttrain.study.table import tables

Say = Callable[[str], None]
NOT_FINITE = "not_finite.txt"


def execute(study: StudyConfig, say: Say = print) -> Path:
    """Runs what is missing, and writes `table.md`, `results.json` and `plots/`; returns the folder.

    Every run's recipe is checked before the first one begins. A run that was broken off goes on from its last checkpoint; a
    finished one is not run again.

    Raises:
        PosttrainError: the first that a run raised; the others were finished.
    """
    matrix = Matrix(study)
    say(matrix.check())
    tuning = list(matrix.tuning())
    starts = [matrix.start_recipe(start, seed) for start, seed in matrix.begun()]
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // study.processes)))
    with ProcessPoolExecutor(study.processes, mp_context=get_context("spawn")) as pool:
        _all(pool, {recipe.output_dir: (recipe, None, None) for recipe in starts}, "start models", say)
        _all(pool, {str(run.folder): (matrix.recipe(run), None, None) for run in tuning}, "learning rates", say)
        chosen = choose(study, tuning)
        final = [run for pair in matrix.pairs() for run in matrix.final(*pair, chosen[pair])]
        jobs = {str(r.folder): (matrix.recipe(r), matrix.start_model(r.start, r.seed), study.drift) for r in final}
        _all(pool, jobs, "runs", say)
    return report(study, final, chosen)


def choose(study: StudyConfig, tuning: Iterable[Run]) -> dict[tuple[str, str], float]:
    """The learning rate of each start and algorithm: the best mean over seeds and metrics; one with which a run was not
    finite is never the best.
    """
    scores: dict[tuple[str, str], dict[float, list[float]]] = {}
    for run in tuning:
        after, failed = Outcome.of(run.folder).after, (run.folder / NOT_FINITE).is_file()
        values = [-math.inf if failed else after[f"eval/{metric}"] for metric in study.tuning.metrics]
        scores.setdefault((run.start, run.algorithm), {}).setdefault(run.learning_rate, []).extend(values)
    return {pair: max(rates, key=lambda rate: sum(rates[rate]) / len(rates[rate])) for pair, rates in scores.items()}


def report(study: StudyConfig, runs: list[Run], chosen: Mapping[tuple[str, str], float]) -> Path:
    """Writes what came of the reported runs."""
    folder = Path(study.output_dir)
    outcomes = {run: Outcome.of(run.folder) for run in runs}
    rows = [{**asdict(run), "folder": str(run.folder), **asdict(outcome)} for run, outcome in outcomes.items()]
    write(folder / "results.json", json.dumps(rows, indent=1))
    write(folder / "table.md", tables(study, outcomes, chosen))
    for start in study.starts:
        of_start = [run for run in runs if run.start == start]
        plot(of_start, list(study.recipe["data"]["eval"]), folder / "plots" / f"{start}.svg")
    return folder


def _all(pool: ProcessPoolExecutor, jobs: Mapping[str, tuple[Recipe, str | None, str | None]], what: str, say: Say) -> None:
    began, failure = time.monotonic(), None
    futures = {pool.submit(_one, *job): name for name, job in jobs.items()}
    for done, future in enumerate(as_completed(futures), 1):
        error = future.exception()
        if error is not None:
            failure = failure or error
            say(f"{futures[future]}: {type(error).__name__}: {error}")
        left = (time.monotonic() - began) / done * (len(jobs) - done)
        say(f"{what}: {done} of {len(jobs)}, {left / 3600:.2f} h left: {futures[future]}")
    if failure is not None:
        raise failure


def _one(recipe: Recipe, start: str | None, measured: str | None) -> None:
    """A run in a process of its own; with a start model, what it went away from it."""
    from posttrain.runner import run
    from posttrain.study.drift import write_drift

    folder = Path(recipe.output_dir)
    if (folder / NOT_FINITE).is_file():
        return
    try:
        run(recipe)
    except NonFiniteError as error:
        if start is not None:
            raise
        write(folder / NOT_FINITE, str(error))
        return
    if start is not None and measured is not None and not (folder / "drift.json").is_file():
        write_drift(recipe, folder, start, measured)
