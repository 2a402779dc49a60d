"""`make gpu-check`: the rehearsal's cases on a real GPU, held to the CPU. Exit status 1 where one fails, 4 without a GPU.

PYTHONPATH=tests python -m gpu.check [WORD …] [--at-once 8] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import torch

from gpu.cases import FLOAT32, Case, cases, compiled_cases
from gpu.engines import engine_cases, engine_faults
from gpu.gates import dtype_faults, fallback_faults, number_faults
from gpu.pretence import phases
from gpu.seen import Seen
from gpu.trained import Trained, apart, trained

CLOSE = 1e-4
"""Relative: losses and norms of gradients against the CPU's. A GPU's sums have orders of their own."""
COARSE, SMALL = 5e-2, 1e-2
"""The same in bfloat16; what is smaller is relative to this: a loss of 0.001 is the rest of terms rounded to 0.003."""
SAMPLER = 1e-2
"""In bfloat16 other roundings sample other answers, and losses are those of another run: what is held there is the mean k3
between sampler and trainer."""


def number_faults_here(case: Case, made: Trained, cpu: Trained) -> Iterator[str]:
    """What is not finite, or too far from the CPU's, or from what sampled it."""
    wrong = sorted({name for step in made.steps for name, value in step.items() if not math.isfinite(value)})
    if wrong:
        yield f"not finite: {', '.join(wrong)}"
    gaps = [step["kl/sampler_trainer"] for step in made.steps if "kl/sampler_trainer" in step]
    if gaps and max(gaps) > SAMPLER:
        yield f"the sampler is {max(gaps):.1e} nats from the trainer, more than {SAMPLER:g}"
    if not gaps or case.precision == FLOAT32:
        bounds = (CLOSE,) if case.precision == FLOAT32 else (COARSE, SMALL)
        yield from number_faults(made, cpu, *bounds)


@dataclass(frozen=True)
class Outcome:
    """Of one case: how far losses and norms of gradients are from the CPU's (see `apart`), where they are held to it; what is
    wrong with it.
    """

    name: str
    seconds: float
    apart: float | None
    faults: list[str]

    def __str__(self) -> str:
        distance = " " * 17 if self.apart is None else f"{self.apart:8.0e} from CPU"
        return "\n    ".join([f"{distance}{self.seconds:7.1f} s  {self.name}", *self.faults])


def run(case: Case, folder: Path) -> Outcome:
    """One case on the GPU and on the CPU."""
    began, seen, distance = time.monotonic(), Seen(), None
    place = folder / str(os.getpid())
    try:
        with phases(seen):
            made = trained(case, place / "device")
        cpu = trained(case, place / "cpu", cpu=True)
    except Exception as error:
        told = _raised(error)
    else:
        told = [*dtype_faults(case, seen, made), *fallback_faults(case, made), *number_faults_here(case, made, cpu)]
        distance = apart(made, cpu)
    return Outcome(case.name, time.monotonic() - began, distance, told)


def run_engine(case: Case, folder: Path) -> Outcome:
    """One case over vLLM."""
    began = time.monotonic()
    try:
        told = engine_faults(case, folder / "device")
    except Exception as error:
        told = _raised(error)
    return Outcome(case.name, time.monotonic() - began, None, told)


def _raised(error: Exception) -> list[str]:
    traceback.print_exception(error)
    return [f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"]


def outcomes(asked: list[str], at_once: int, folder: Path) -> Iterator[Outcome]:
    """Of the cases with one of these words in their names, or of all; those over vLLM one after another."""
    mine = [case for case in (*cases(), *compiled_cases()) if case_is_asked(case, asked)]
    if at_once == 1:
        yield from (run(case, folder) for case in mine)
    else:
        with ProcessPoolExecutor(at_once, mp_context=get_context("spawn"), initializer=_quiet) as pool:
            yield from (done.result() for done in as_completed([pool.submit(run, case, folder) for case in mine]))
    for case in engine_cases(torch.cuda.device_count()):
        if case_is_asked(case, asked):
            yield run_engine(case, folder)


def case_is_asked(case: Case, asked: Sequence[str]) -> bool:
    """Whether nothing is asked for, or a word that its name has."""
    return not asked or any(word in case.name for word in asked)


def _quiet() -> None:
    logging.disable(logging.WARNING)


def main() -> int:
    """Runs the cases that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="cases with one of them in their name; all if there is none")
    parser.add_argument("--at-once", type=int, default=1, help="cases that run beside each other on the GPU")
    parser.add_argument("--output", type=Path, help="a file of JSON for what was seen")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            "There is no GPU here that torch can use, so nothing was checked. `make gpu-rehearsal` runs the same cases on a "
            "device that is pretended.",
            file=sys.stderr,
        )
        return 4
    _quiet()
    known = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "transformers": version("transformers")}
    print(", ".join(f"{name} {value}" for name, value in known.items()))
    if find_spec("vllm") is None:
        print("vLLM is not installed: nothing of it is checked")
    done = list[Outcome]()
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        for outcome in outcomes(options.words, options.at_once, Path(folder)):
            print(outcome, flush=True)
            done.append(outcome)
            if options.output is not None:
                options.output.write_text(json.dumps({**known, "cases": [vars(one) for one in done]}, indent=1))
    failed = sorted(one.name for one in done if one.faults)
    print(f"{len(done)} cases, {len(failed)} failed", *failed, sep="\n  ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
