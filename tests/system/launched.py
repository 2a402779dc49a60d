"""A child of test_launch.py: each rank does the word that is its own, after all are there.

Words: an exit code; `killed`, by SIGKILL; `sleeping`, for a minute.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    folder, *words = sys.argv[1:]
    rank = int(os.environ["RANK"])
    (Path(folder) / f"{rank}.pid").write_text(str(os.getpid()))
    while len(list(Path(folder).glob("*.pid"))) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.05)
    if words[rank] == "sleeping":
        time.sleep(60)
    elif words[rank] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        sys.exit(int(words[rank]))


if __name__ == "__main__":
    main()
