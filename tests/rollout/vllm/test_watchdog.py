"""A process whose engine hangs ends with exit code 6 and all stacks; one that works is left alone."""

from __future__ import annotations

import subprocess
import sys
import time

from posttrain.rollout.vllm.watchdog import Watchdog

HANGS = """
import time
from posttrain.rollout.vllm.watchdog import Watchdog
def engine_that_hangs():
    time.sleep(60)
try:
    with Watchdog("the engine", 0.5, lambda: print("cleaned up", flush=True)):
        engine_that_hangs()
finally:
    print("never reached")
"""
WORKS = """
import time
from posttrain.rollout.vllm.watchdog import Watchdog
for _ in range(2):
    with Watchdog("the engine", 1.0) as watchdog:
        for _ in range(15):
            time.sleep(0.1)
            watchdog.beat()
time.sleep(1.2)
print("done")
"""


def _child(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_a_hang_ends_the_process_with_the_stacks() -> None:
    child = _child(HANGS)
    assert (child.returncode, child.stdout) == (6, "cleaned up\n")
    assert "the engine made no progress for 0.5 s" in child.stderr and "engine_that_hangs" in child.stderr


def test_progress_is_no_hang_and_neither_is_what_follows() -> None:
    child = _child(WORKS)
    assert (child.returncode, child.stdout) == (0, "done\n"), child.stderr


def test_it_watches_only_while_entered() -> None:
    with Watchdog("nothing", 0.2):
        pass
    time.sleep(0.5)
