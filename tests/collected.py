"""Recipes that play before training, for tests of the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recipes import SCRATCH, Command, recipe, write

ROWS = [{"prompt": f"{i}=", "answer": "1", "completion": "1"} for i in range(6)]
ECHO = {"name": "echo", "max_turns": 1}
GUESS = {"name": "guess", "question": "?", "max_turns": 3, "turn_tokens": 2, "observation_tokens": 2}
GRID = {
    "name": "grid",
    "size": 3,
    "door": False,
    "question": "{map}",
    "seen": "{column}{row}",
    "max_turns": 4,
    "turn_tokens": 1,
}
ALPHABETS = {"guess": "0123456789<>!?+-", "grid": "#.SGnesw123!\n", "echo": "0123456789+-*="}


def collecting(collect: Any, environment: Any = GUESS, **changes: Any) -> str:
    """A recipe in the current folder; without an environment over rows of a file."""
    name = "echo" if environment is None else str(environment["name"])
    makes = name != "echo"
    train = {"environment": {"rows": 12}} if makes else {"path": write(Path("rows.jsonl"), *ROWS)}
    data = {"chat_template": False, "train": train, "collect": collect, **changes.pop("data", {})}
    values = {
        "model": {**SCRATCH, "tokenizer": {"characters": ALPHABETS[name]}},
        "data": data,
        "training": {"max_steps": 2, "rows_per_step": 4, "learning_rate": 1.0e-2},
        **({} if environment is None else {"environment": environment}),
        **({} if makes else {"rewards": [{"name": "exact_match"}]}),
    }
    return recipe(**{**values, **changes})


def trained(posttrain: Command, path: str, folder: str) -> dict[str, Any]:
    """The first line of the run's metrics."""
    code, _, err = posttrain("run", path, "--set", f"output_dir={folder}")
    assert code == 0, err
    return lines(f"{folder}/metrics.jsonl")[0]


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
