"""A reward in TRL's form: prompts and completions in, a score for each out; columns of the row come by their names."""

from __future__ import annotations

from typing import Any


def right_and_shown(prompts: list[str], completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    """1 for the right last digit, and a tenth for each running value before it, up to four."""

    def score(completion: str, wanted: str) -> float:
        values, _, last = completion.partition("#")
        return float(last == wanted) + 0.1 * min(len(values), 4)

    return [score(completion, wanted) for completion, wanted in zip(completions, answer, strict=True)]
