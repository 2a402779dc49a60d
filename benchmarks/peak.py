"""The memory that a step takes above what was held before it, in a process of its own for each contender.

`python benchmarks/peak.py CASE IMPLEMENTATION` prints bytes: the high-water mark of the resident memory, from before the
first step, less what was resident there. Gradients count; weights and what imports hold do not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

AT_A_TIME = 2


def peaks(case: str, implementations: Iterable[str]) -> dict[str, int]:
    """Bytes by implementation."""

    def of(implementation: str) -> int:
        command = [sys.executable, __file__, case, implementation]
        run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if run.returncode:
            raise RuntimeError(f"{case}, {implementation}: {run.stderr[-2000:]}")
        return int(run.stdout.splitlines()[-1])

    names = list(implementations)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return dict(zip(names, pool.map(of, names), strict=True))


def _status(name: str) -> int:
    [line] = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(name)]
    return int(line.split()[1]) * 1024


def main() -> None:
    """Measures one contender here."""
    import torch
    from steps import STEPS

    torch.set_num_threads(1)
    contender = STEPS[sys.argv[1]].makes[sys.argv[2]]()
    contender.clear()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = _status("VmRSS")
    contender.step()
    print(_status("VmHWM") - before)


if __name__ == "__main__":
    main()
