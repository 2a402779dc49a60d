"""What a command says first: before anything that is slow to import."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

SLOW = ("torch", "transformers", "accelerate", "peft", "datasets", "deepspeed", "trl", "vllm", "pandas", "scipy")
ENDS_AT_ITS_FIRST_LINE = f"""
import importlib, sys
command = importlib.import_module("posttrain.cli.commands.run")
def say(line):
    print(line)
    print([name for name in {SLOW} if name in sys.modules])
    sys.exit()
command.say = say
command.run("quickstart", [], dry_run=True)
"""


def test_a_run_says_its_version_and_devices_before_it_loads_anything() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RANK"}
    done = subprocess.run([sys.executable, "-c", ENDS_AT_ITS_FIRST_LINE], env=environment, capture_output=True, text=True)
    line, loaded = done.stdout.splitlines()
    assert line.startswith(f"posttrain {version('posttrain')} on ") and "grpo" in line
    assert loaded == "[]", loaded
