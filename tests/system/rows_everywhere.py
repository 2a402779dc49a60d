"""Runs a recipe of which every row lies on disk. Started by test_mixtures.py with torchrun."""

from __future__ import annotations

import sys

from posttrain import load_recipe, run
from posttrain.distributed.launch import leave
from posttrain.execution.prepare.data import kept


def main() -> None:
    kept.IN_MEMORY = 0
    run(load_recipe(sys.argv[1]))
    leave(SystemExit())


if __name__ == "__main__":
    main()
