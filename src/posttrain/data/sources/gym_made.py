"""The process that makes questions of reasoning-gym: `python -m posttrain.data.sources.gym_made SOURCE`, in JSON."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from typing import Any

BLOCK = 2**20
"""Questions of a seed. reasoning-gym draws question i of seed s as question 0 of seed s + i, so that neighbouring seeds share
all but one of theirs: each of ours has a block of its own."""


def made(gym: str, rows: int, seed: int, options: Mapping[str, Any]) -> Any:
    """reasoning-gym's data set of a source.

    Raises:
        ValueError: it knows no such gym, or not with these options.
    """
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if gym not in DATASETS:
        near = difflib.get_close_matches(gym, DATASETS, 1)
        raise ValueError(
            f"reasoning-gym has no {gym}" + (f"; did you mean {near[0]}?" if near else f": {', '.join(sorted(DATASETS))}.")
        )
    try:
        return reasoning_gym.create_dataset(gym, **{**options, "seed": seed * BLOCK, "size": rows})
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"{gym} with options {dict(options)}: {error}") from None


def questions(source: Mapping[str, Any]) -> dict[str, Any]:
    """All of a source, each with reasoning-gym's own answer, null where it has none; or why there are none."""
    try:
        entries = made(**source)
    except ValueError as error:
        return {"refused": str(error)}
    return {"questions": [(one["question"], _text(one["answer"])) for one in (entries[i] for i in range(source["rows"]))]}


def _text(answer: Any) -> str | None:
    return answer if isinstance(answer, str) and answer.strip() else None


if __name__ == "__main__":
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a gym prints is no answer
    print(json.dumps(questions(json.loads(sys.argv[1]))), file=answers)
