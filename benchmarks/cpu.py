"""`make bench`: every case on two threads of a CPU, in under ten minutes; writes benchmarks/results/cpu.jsonl.

A case is first made to agree: every contender makes one step, and its loss and the norm of its gradients must be the first
one's, or it gets no timing. Then the contenders take turns. `--only head-32k,dpo` runs some cases and keeps the other lines;
`--run 2` writes the second of several runs in a row; `--trl FOLDER` measures another release of TRL. At the end figures that
are missed are told, and the exit status is 1.
"""

from __future__ import annotations

from quiet import settle, touch  # isort: skip  # what it sets must be set before others are imported

import argparse
import gc
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import other_trl
import peak
import share
import torch
import training
import vllm_server
from agreement import of_parameters, of_steps, of_work
from host import run_host
from results import CPU_RESULTS, Result, machine, merged, read, versions, write
from steps import STEPS, Case
from targets import TARGETS, verdicts
from timing import Contender, Times, in_turn, least, once, ratios
from training import TRAININGS, Plan, Run, Training

THREADS = 2
SHARES: dict[str, tuple[Callable[[Plan], Run], Plan]] = {
    "share-sft": (training.ours_sft, replace(TRAININGS["train-sft"].plan, steps=4)),
    "share-grpo": (training.ours_grpo, replace(TRAININGS["train-grpo"].plan, steps=3)),
}


def run_steps(case: Case, *, peaks: bool = True) -> list[Result]:
    """The rows of a case of one step: parity, then times, then memory."""
    contenders = {name: make() for name, make in case.makes.items()}
    rows = of_steps(case.name, dict(case.shape), contenders)
    timed = {name: contender for name, contender in contenders.items() if rows[name].agrees is not False}
    times = in_turn(timed, case.rounds)
    memory = peak.peaks(case.name, case.makes) if case.peak and peaks else {}
    return [_filled(row, contenders[name], times, memory, case.rounds) for name, row in rows.items()]


def run_training(case: Training) -> list[Result]:
    """The rows of whole trainings. The first of each is held to the others and warms up; it is not timed."""
    makes = {name: (lambda make=make: make(case.plan)) for name, make in case.makes.items()}
    first = {name: make() for name, make in makes.items()}
    for run in first.values():
        run.train()
    shape = case.plan.described()
    rows = of_parameters(case.name, shape, first) if case.exact else of_work(case.name, shape, first)
    first.clear()
    seen: dict[str, list[Times]] = {name: [] for name, row in rows.items() if row.agrees is not False}
    for _ in range(case.rounds):
        for name, times in seen.items():
            run = makes[name]()
            gc.collect()
            times.append(once(run.train))
    times = {name: least(each) for name, each in seen.items()}
    nobody = Contender(lambda: 0.0, [])
    return [_filled(row, nobody, times, {}, case.rounds) for row in rows.values()]


def run_share(name: str) -> list[Result]:
    """The row that says what part of our trainings is overhead."""
    make, plan = SHARES[name]
    run = make(plan)
    collector = run.trainer.run_state.collector
    shares = share.measured(run.trainer, engine=getattr(collector, "_engine", None), reward=run.judged)
    return [Result(name, "ours", plan.described(), share=shares["outside"], shares=shares)]


def _filled(row: Result, contender: Contender, times: Mapping[str, Times], memory: Mapping[str, int], rounds: int) -> Result:
    name, against = row.implementation, contender.against
    row = replace(row, note=contender.note, peak_bytes=memory.get(name))
    if name != against and {name, against} <= memory.keys():
        row = replace(row, peak_ratio=memory[name] / memory[against], against=against)
    if name not in times:
        return row
    row = replace(row, **vars(times[name]), rounds=rounds)
    if name == against or against not in times:
        return row
    return replace(row, **ratios(times[name], times[against]), against=against)


def run(name: str, rounds: int | None = None) -> list[Result]:
    """The rows of the case of that name, with its own rounds where none are given."""
    if name in STEPS:
        made = run_steps(replace(STEPS[name], rounds=rounds or STEPS[name].rounds))
    elif name in TRAININGS:
        made = run_training(replace(TRAININGS[name], rounds=rounds or TRAININGS[name].rounds))
    elif name in SHARES:
        made = run_share(name)
    else:
        made = run_host() if name == "host" else vllm_server.run_trainings()
    gc.collect()
    return made


def run_other(name: str, rounds: int | None, release: str) -> list[Result]:
    """The rows of another release of TRL in the case of that name; where it does not run it, they say so."""
    case = STEPS.get(name) or TRAININGS[name]
    makes: Any = other_trl.compared(dict(case.makes))
    case = replace(case, rounds=rounds or case.rounds, makes=makes)
    try:
        made = run_training(case) if isinstance(case, Training) else run_steps(case)
    except Exception as error:
        made = other_trl.failed(name, makes, error)
    return other_trl.named(made, release)


def told(row: Result) -> str:
    """A row for the terminal."""
    said: dict[str, Any] = {
        "wall": row.wall and f"{row.wall:.3f} s",
        "user": row.user and f"{row.user:.3f} s",
        "system": row.system and f"{row.system:.3f} s",
        "cost by ours": row.ratio and f"{row.ratio:.2f}",
        "by the clock": row.ratio_wall and f"{row.ratio_wall:.2f}",
        "peak": row.peak_bytes and f"{row.peak_bytes / 2**20:.0f} MB",
        "by ours": row.peak_ratio and f"{row.peak_ratio:.2f}",
        "outside": row.share and f"{100 * row.share:.1f} %",
        **{name: f"{figure:.4g}" for name, figure in row.figures.items()},
    }
    parity = "" if row.agrees is None else f"differs by {row.difference:.1e}" + ("" if row.agrees else ": PARITY FAILED")
    words = "  ".join(f"{key} {value}" for key, value in said.items() if value) or row.note
    return f"  {row.implementation:28s}{words}  {parity}"


def main() -> None:
    """Runs the cases and writes their lines."""
    names = [*STEPS, *TRAININGS, *SHARES, "host", "train-grpo-vllm"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help=f"of {', '.join(names)}")
    parser.add_argument("--run", type=int, default=1, help="the number of this run among several in a row")
    parser.add_argument("--trl", type=Path, help="a folder with another release of TRL, which is measured beside the others")
    parser.add_argument("--output", type=Path, default=CPU_RESULTS)
    parser.add_argument("--rounds", type=int, help="in place of those of each case, to try a change out")
    options = parser.parse_args()
    names = [*STEPS, *TRAININGS] if options.trl else names
    chosen = options.only.split(",") if options.only else names
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"unknown cases: {', '.join(unknown)}; there are {', '.join(names)}")
    try:
        release = other_trl.put_first(options.trl) if options.trl else ""
    except ValueError as error:
        parser.error(f"--trl: {error}")
    torch.set_num_threads(THREADS)
    touch()
    settle()
    started, rows = time.monotonic(), list[Result]()
    known = {"run": options.run, "machine": machine(THREADS), "versions": versions()}
    for name in chosen:
        began = time.monotonic()
        made = run_other(name, options.rounds, release) if release else run(name, options.rounds)
        made = [replace(row, **known) for row in made]
        rows += made
        print(f"{name}, {time.monotonic() - began:.0f} s", *map(told, made), sep="\n", flush=True)
        write(merged(read(options.output), rows, beside=bool(release)), options.output)
    print(f"{time.monotonic() - started:.0f} s in all; {options.output}")
    missed = [verdict.told() for verdict in verdicts(rows, TARGETS) if verdict.missed]
    print(*(f"MISSED  {line}" for line in missed), sep="\n")
    sys.exit(bool(missed) or any(row.agrees is False for row in rows))


if __name__ == "__main__":
    main()
