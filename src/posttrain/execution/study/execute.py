"""Runs a study: start models, then the runs that learning rates are chosen by, then those that are reported."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path

import torch

from posttrain.distributed.signals import Interruption, end_with_parent
from posttrain.errors import Interrupted, NonFiniteError, RecipeError
from posttrain.execution.study.config import StudyConfig
from posttrain.execution.study.continual.line import line_of
from posttrain.execution.study.continual.measures import over_tasks
from posttrain.execution.study.continual.plots import plot_lines
from posttrain.execution.study.known import NOT_FINITE, Known
from posttrain.execution.study.matrix import Matrix, Run
from posttrain.execution.study.outcome import Outcome
from posttrain.execution.study.plots import plot
from posttrain.execution.study.results import save_results
from posttrain.execution.study.table import tables
from posttrain.recipe.recipe import Recipe
from posttrain.settings.doors.permissions import Permissions
from posttrain.train.watch.records import write

Say = Callable[[str], None]
DENIED = Permissions()
_interrupted: list[Interrupted] = []
"""What a worker's run was ended by: it begins none of those that were given to it before."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run in a process of its own.

    run: the one that it is, if it is no start model. start: the model that it begins from. measured: the set on whose
    questions the drift from it is measured. line: the models that are made of its last and an earlier one. may_fail: not
    being finite is a result of the run, and no error.
    """

    recipe: Recipe
    run: Run | None = None
    start: str | None = None
    measured: str | None = None
    line: Recipe | None = None
    may_fail: bool = False


def execute(study: StudyConfig, say: Say = print, *, permissions: Permissions = DENIED) -> Path:
    """Runs what is missing, and writes `table.md`, `results.json` and `plots/`; returns the folder.

    Every run's recipe is checked before the first one begins. A run that was broken off goes on from its last checkpoint; a
    finished one is not run again. What came of each stands in `outcomes.jsonl`, which is enough to go on from elsewhere.

    Args:
        study: from `load_study`.
        say: is told of progress.
        permissions: of all runs.

    Raises:
        RecipeError: the recipe of a run is wrong, or a metric is not measured.
        PosttrainError: the first that a run raised; the others were finished.
        Interrupted: a signal asked this process to end: so did the runs, as they do by themselves.
    """
    matrix = Matrix(study)
    say(matrix.check(permissions))
    known, tuning = Known(matrix, Path(study.output_dir)), list(matrix.tuning())
    with _workers(study.processes) as pool:
        begin = partial(_all, pool, known, say=say, permissions=permissions)
        lacking = known.lacking(tuning)
        if lacking:
            begin("start models", [Job(matrix.start_recipe(start, seed)) for start, seed in matrix.begun()])
            begin("learning rates", [Job(matrix.recipe(run), run, may_fail=True) for run in lacking])
        chosen = choose(study, known.outcomes(tuning))
        final = [run for pair in matrix.pairs() for run in matrix.final(*pair, chosen[pair])]
        missing = known.lacking(final)
        begun = {(run.start, run.seed) for run in missing} & set(matrix.begun())
        if not lacking and begun:
            begin("start models", [Job(matrix.start_recipe(start, seed)) for start, seed in sorted(begun)])
        starts = {run: matrix.start_model(run.start, run.seed) for run in missing}
        jobs = [Job(matrix.recipe(run), run, start, study.drift, matrix.line(run)) for run, start in starts.items()]
        begin("runs", jobs)
    return report(study, {run: one for run, one in known.outcomes(final).items() if one is not None}, say)


def choose(study: StudyConfig, tuning: Mapping[Run, Outcome | None]) -> dict[tuple[str, str], float]:
    """The learning rate of each start and algorithm: the best mean over seeds and metrics; one with which a run was not
    finite is never the best.

    Raises:
        RecipeError: a metric is not measured.
        NonFiniteError: with every learning rate a run was not finite.
    """
    scores: dict[tuple[str, str], dict[float, list[float]]] = {}
    for run, outcome in tuning.items():
        values = [-math.inf] if outcome is None else _measured(run, outcome, study.tuning.metrics)
        scores.setdefault((run.start, run.algorithm), {}).setdefault(run.learning_rate, []).extend(values)
    chosen: dict[tuple[str, str], float] = {}
    for pair, rates in scores.items():
        means = {rate: sum(values) / len(values) for rate, values in rates.items()}
        chosen[pair] = max(means, key=means.__getitem__)
        if means[chosen[pair]] == -math.inf:
            raise NonFiniteError(
                f"{' with '.join(pair)}: no learning rate kept all runs finite: give tuning.learning_rates lower."
            )
    return chosen


def _measured(run: Run, outcome: Outcome, metrics: Sequence[str]) -> list[float]:
    after = {name.removeprefix("eval/"): value for name, value in outcome.after.items()}
    missing = [metric for metric in metrics if metric not in after]
    if missing:
        of_set = f"{missing[0].partition('/')[0]}/"
        known = [name for name in after if name.startswith(of_set) and not name.endswith(("/low", "/high"))]
        raise RecipeError(
            f"tuning.metrics: {missing[0]} is not in the evaluation of {run.folder}; there are {', '.join(known) or 'none'}. "
            "Mend the study and run it again: what is finished is not run again."
        )
    return [after[metric] for metric in metrics]


def report(study: StudyConfig, outcomes: Mapping[Run, Outcome], say: Say = print) -> Path:
    """Writes the results of the reported runs, and says what is to be shown of them and was measured in none, and which have
    no curves.
    """
    folder = Path(study.output_dir)
    if study.continual is not None:
        outcomes = {
            run: replace(one, measures=over_tasks(study.continual, str(run.folder), one).metrics)
            for run, one in outcomes.items()
        }
    measured = {
        name for one in outcomes.values() for name in (*one.watched, *(key.removeprefix("eval/") for key in one.after))
    }
    for name in study.shown:
        if name not in measured:
            say(f"shown: {name} is measured in no run.")
    save_results(folder / "results.json", outcomes)
    write(folder / "table.md", tables(study, outcomes))
    here = [run for run in outcomes if run.folder.is_dir()]
    if away := len(outcomes) - len(here):
        say(f"plots: {away} of {len(outcomes)} runs are known by outcomes.jsonl alone, and have no curve.")
    for start in study.starts:
        of_start = [run for run in here if run.start == start]
        plot(of_start, list(study.recipe["data"]["eval"]), folder / "plots" / f"{start}.svg")
        if study.continual is not None and study.continual.anchor is not None:
            lines = {run: line_of(study.continual, run, one) for run, one in outcomes.items() if run.start == start}
            plot_lines(study.continual, lines, folder / "plots" / f"{start}-line.svg")
    return folder


@contextlib.contextmanager
def _workers(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that run jobs. A signal to this one ends them, after what their runs do then; its death ends them at once."""
    cores, others = max(1, (os.cpu_count() or 1) // processes), active_children()
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _begin, (cores, os.getpid()))
    with Interruption():
        try:
            yield pool
        except Interrupted:
            for worker in active_children():
                if worker not in others:
                    worker.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(threads: int, parent: int) -> None:
    """In a worker. In a session of its own, so that Ctrl-C comes to its parent alone, which then tells it."""
    os.setsid()
    end_with_parent(parent, signal.SIGKILL)
    _share_cores(threads)


def _all(
    pool: ProcessPoolExecutor, known: Known, what: str, jobs: Sequence[Job], *, say: Say, permissions: Permissions
) -> None:
    began, failure = time.monotonic(), None
    futures = {pool.submit(_one, job, permissions): job for job in jobs}
    for done, future in enumerate(as_completed(futures), 1):
        error, job = future.exception(), futures[future]
        if error is not None:
            failure = failure or error
            say(f"{job.recipe.output_dir}: {type(error).__name__}: {error}")
        elif job.run is not None:
            known.add(job.run)
        left = (time.monotonic() - began) / done * (len(jobs) - done)
        say(f"{what}: {done} of {len(jobs)}, {left / 3600:.2f} h left: {job.recipe.output_dir}")
    if failure is not None:
        raise failure


def _share_cores(threads: int) -> None:
    """In a process that runs jobs, and for those that it starts; torch itself may have read the variable before."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)


def _one(job: Job, permissions: Permissions) -> None:
    from posttrain.execution.runner import run
    from posttrain.execution.study.drift import write_drift

    folder = Path(job.recipe.output_dir)
    if job.may_fail and (folder / NOT_FINITE).is_file():
        return
    if _interrupted:
        raise _interrupted[0]
    try:
        for recipe in (job.recipe, job.line):
            if recipe is not None:
                run(recipe, **permissions.as_options)
    except NonFiniteError as error:
        if not job.may_fail:
            raise
        write(folder / NOT_FINITE, str(error))
        return
    except Interrupted as ended:
        _interrupted.append(ended)
        raise
    if job.start is not None and job.measured is not None and not (folder / "drift.json").is_file():
        write_drift(job.recipe, folder, job.start, job.measured)
