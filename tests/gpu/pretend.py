"""Any Python program on a device that is not there: what waits and runs on it is counted and told at the end.

PYTHONPATH=tests python -m gpu.pretend FILE ARGUMENT …
PYTHONPATH=tests python -m gpu.pretend -m MODULE ARGUMENT …
"""

from __future__ import annotations

from gpu import runtime  # isort: skip  # before torch

if __name__ == "__main__":
    runtime.believe()

import runpy
import sys
from pathlib import Path

from gpu.pretence import pretence
from gpu.seen import Seen


def main() -> None:
    """Runs the program as if it had been started by itself."""
    seen, is_module = Seen(), sys.argv[1:2] == ["-m"]
    sys.argv = sys.argv[2 if is_module else 1 :]
    if not sys.argv:
        sys.exit(__doc__)
    with pretence(seen):
        if is_module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(sys.argv[0]).parent))
            runpy.run_path(sys.argv[0], run_name="__main__")
    print(f"On the pretended device: {sum(seen.kernels.values())} kernels, {sum(seen.waits.values())} waits.")


if __name__ == "__main__":
    main()
