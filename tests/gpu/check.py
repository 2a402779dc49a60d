"""`make gpu-check`: the rehearsal's cases on a real GPU, held to the CPU. Exit status 1 where one fails, 4 without a GPU.

PYTHONPATH=tests python -m gpu.check [ALGORITHM …]
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from gpu.cases import FLOAT32, Case, cases
from gpu.engines import engine_cases, engine_faults
from gpu.gates import dtype_faults, fallback_faults, number_faults
from gpu.pretence import phases
from gpu.seen import Seen
from gpu.trained import Trained, apart, trained

CLOSE = {FLOAT32: 1e-3}
"""Relative: losses and norms of gradients against the CPU's. A GPU's sums have orders of their own."""
COARSE = 5e-2
"""The same in bfloat16."""
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
        yield from number_faults(made, cpu, CLOSE.get(case.precision, COARSE))


def run(case: Case, folder: Path) -> list[str]:
    """One case on the GPU and on the CPU; prints a line."""
    began, seen = time.monotonic(), Seen()
    try:
        with phases(seen):
            made = trained(case, folder / "device")
        cpu = trained(case, folder / "cpu", cpu=True)
    except Exception as error:
        traceback.print_exc()
        told = [f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"]
    else:
        told = [*dtype_faults(case, seen, made), *fallback_faults(case, made), *number_faults_here(case, made, cpu)]
        print(f"{apart(made, cpu):8.0e} from the CPU", end="")
    print(f"{time.monotonic() - began:6.1f} s  {case.name}", *told, sep="\n    ", flush=True)
    return told


def run_engine(case: Case, folder: Path) -> list[str]:
    """One case over vLLM; prints a line."""
    began = time.monotonic()
    try:
        told = engine_faults(case, folder / "device")
    except Exception as error:
        traceback.print_exc()
        told = [f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"]
    print(f"{time.monotonic() - began:6.1f} s  {case.name}", *told, sep="\n    ", flush=True)
    return told


def main() -> int:
    """Runs the cases of the algorithms that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("algorithms", nargs="*", help="all if none is named")
    asked = parser.parse_args().algorithms
    if not torch.cuda.is_available():
        print(
            "There is no GPU here that torch can use, so nothing was checked. `make gpu-rehearsal` runs the same cases on a "
            "device that is pretended.",
            file=sys.stderr,
        )
        return 4
    logging.disable(logging.WARNING)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    over_vllm = list(engine_cases(torch.cuda.device_count()))
    if not over_vllm:
        print("vLLM is not installed: nothing of it is checked")
    ways = ((run, list(cases())), (run_engine, over_vllm))
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        failed = [
            case.name
            for check, over in ways
            for case in over
            if (not asked or case.algorithm in asked) and check(case, Path(folder))
        ]
    print(f"{len(failed)} failed", *failed, sep="\n  ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
