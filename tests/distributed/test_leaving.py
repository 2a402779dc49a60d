"""How one of several processes ends: with the code, the words and the exit functions that Python's own end would have."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENDS = [
    ("raise SystemExit", 0, ""),
    ("raise SystemExit(0)", 0, ""),
    ("raise SystemExit(75)", 75, ""),
    ("raise SystemExit('too bad')", 1, "too bad"),
    ("1 / 0", 1, "ZeroDivisionError: division by zero"),
    ("raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
]
SCRIPT = """
import atexit, sys
from posttrain.distributed.launch import leave
atexit.register(print, "exit functions ran")
print("written", end=" ")
try:
    {}
except BaseException as error:
    leave(error)
"""


@pytest.mark.parametrize(("end", "code", "told"), ENDS)
def test_it_ends_as_python_would(end: str, code: int, told: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(end)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "written exit functions ran\n")
    assert told in done.stderr and bool(told) == bool(done.stderr)
