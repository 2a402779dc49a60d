"""Small recipes for tests of the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

SCRATCH = {"from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1}, "tokenizer": "characters"}
Command = Callable[..., tuple[int, str, str]]
"""Arguments → exit code, stdout, stderr."""


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def recipe(**changes: Any) -> str:
    """A recipe.yaml in the current folder that trains for two steps, with top-level changes."""
    values = {
        "model": SCRATCH,
        "algorithm": {"name": "sft"},
        "data": {"train": {"task": "chain", "rows": 8}},
        "training": {"max_steps": 2, "rows_per_step": 4},
        "output_dir": "out",
        **changes,
    }
    Path("recipe.yaml").write_text(yaml.safe_dump(values))
    return "recipe.yaml"


def only_warnings(err: str) -> bool:
    """Whether nothing but what a run is told by its own metrics is on stderr: one of few steps may learn nothing."""
    return all(line.startswith("warning: ") for line in err.splitlines())


def in_cells(out: str) -> str:
    """What a table says, whatever its width: a cell that is broken over lines is one."""
    return re.sub(r"[\s│]+", " ", out)
