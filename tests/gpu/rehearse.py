"""`make gpu-rehearsal`: every case on a device that is not there, and what is wrong with it: exit status 1.

PYTHONPATH=tests python -m gpu.rehearse [ALGORITHM …] [--write]
"""

from __future__ import annotations

from gpu import runtime  # isort: skip  # before torch

if __name__ == "__main__":
    runtime.believe()

import argparse
import logging
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import posttrain
from gpu.cases import LAYERS, Case, cases
from gpu.gates import (
    Figures,
    allowed_waits,
    as_entries,
    committed_figures,
    dtype_faults,
    fallback_faults,
    is_exact,
    kernel_faults,
    number_faults,
    wait_faults,
    waits_of_step,
    write_figures,
)
from gpu.pretence import phases, pretence
from gpu.seen import OTHER, STEP, Line, Seen
from gpu.trained import apart, trained

PACKAGE = Path(posttrain.__file__).parent


class Rehearsal:
    """Case after case; `faults` are by case, or by nothing where they are of all."""

    def __init__(self, folder: Path, *, trace: bool) -> None:
        self._folder, self._trace = folder, trace
        self._committed = committed_figures()
        self.figures: dict[str, Figures] = {}
        self.faults: list[tuple[str, str]] = []
        self.waits: dict[Line, str] = {}
        self.elsewhere: Counter[tuple[str, Line, str]] = Counter()
        self.attention: Counter[str] = Counter()

    def run(self, case: Case) -> None:
        """One case, on the pretended device; where its numbers are exact on the CPU as well. Prints a line."""
        began, seen, told = time.monotonic(), Seen(), list[str]()
        try:
            with pretence(seen), phases(seen):
                made = trained(case, self._folder / "device")
            cpu = trained(case, self._folder / "cpu", cpu=True) if is_exact(case) else None
        except Exception as error:
            told.append(_where(error))
            if self._trace:
                traceback.print_exc()
            print(f"{time.monotonic() - began:5.1f} s  {case.name}  FAILED", flush=True)
        else:
            of_case = self.figures[case.name] = Figures.of(seen)
            told += [*dtype_faults(case, seen, made), *fallback_faults(case, made), *number_faults(made, cpu)]
            told += kernel_faults(case.name, of_case, self._committed)
            words = [f"{of_case.kernels} kernels a step, {of_case.kernels / LAYERS:.0f} a layer", f"{of_case.waits} waits"]
            words += [] if cpu is None else [f"{apart(made, cpu):.0e} from the CPU"]
            print(f"{time.monotonic() - began:5.1f} s  {case.name}: {', '.join(words)}" + "  FAULT" * bool(told), flush=True)
        self.faults += [(case.name, one) for one in told]
        for line, what in waits_of_step(seen).items():
            self.waits.setdefault(line, f"{what}, first in {case.name}")
        self.elsewhere.update({key: n for key, n in seen.waits.items() if key[0] not in (OTHER, STEP)})
        self.attention.update(name for _, name in seen.attention.elements())

    def end(self, *, whole: bool, write: bool) -> bool:
        """Prints what all cases have in common; whether there is no fault."""
        if write:
            write_figures(self.figures)
            self.faults = [fault for fault in self.faults if "kernel" not in fault[1] and "committed" not in fault[1]]
        allowed = allowed_waits()
        of_waits = list(wait_faults(self.waits, allowed, whole=whole))
        print("\nWaits in a training step:", *(f"  {line}: {what}" for line, what in sorted(self.waits.items())), sep="\n")
        print("\nOther waits:", *(f"  {n:5d} × {phase}, {line}: {what}" for (phase, line, what), n in self.elsewhere.items()),
              sep="\n")  # fmt: skip
        print(
            "\nAttention kernels that torch chose:", *(f"  {n:5d} × {name}" for name, n in self.attention.items()), sep="\n"
        )
        if new := {line: what for line, what in sorted(self.waits.items()) if line not in allowed}:
            print("\nThe list lacks:", as_entries(new), sep="\n")
        grouped: dict[str, list[str]] = {}
        for name, fault in self.faults:
            grouped.setdefault(fault, []).append(name)
        print(f"\n{len(self.figures)} cases ran to their end, {len(grouped) + len(of_waits)} faults", *of_waits, sep="\n  ")
        for fault, names in grouped.items():
            print(f"  {fault}\n    in {len(names)}: {'; '.join(names[:4])}" + "; …" * (len(names) > 4))
        return not grouped and not of_waits


def _where(error: Exception) -> str:
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(str(PACKAGE))]
    at = f"{Path(frames[-1].filename).relative_to(PACKAGE)}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {at}: {(str(error).splitlines() or [''])[0][:300]}"


def main() -> int:
    """Runs the cases of the algorithms that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("algorithms", nargs="*", help="all if none is named")
    parser.add_argument("--write", action="store_true", help="commit the kernels and waits of these cases to figures.json")
    parser.add_argument("--trace", action="store_true", help="print where a case failed")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    began, asked = time.monotonic(), options.algorithms
    with tempfile.TemporaryDirectory(prefix="gpu-rehearsal-") as folder:
        rehearsal = Rehearsal(Path(folder), trace=options.trace)
        for case in cases():
            if not asked or case.algorithm in asked:
                rehearsal.run(case)
    sound = rehearsal.end(whole=not asked, write=options.write)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{time.monotonic() - began:.0f} s, {memory:.1f} GB at the most")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
