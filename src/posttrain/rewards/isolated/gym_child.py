"""The child process that scores answers with reasoning-gym; its parent owns the deadline."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

from posttrain.data.sources.gym_made import made
from posttrain.rewards.isolated.serve import serve

MEMORY = 4 * 2**30  # bytes of address space


def scorer() -> Callable[[dict[str, Any]], float | None]:
    """Answers {"source": …, "index": …, "answer": …} with a score, 0 to 1; null where the verifier failed.

    It makes the question again: some verifiers tell a list from a tuple, which JSON does not.
    """
    import_module("reasoning_gym")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    @lru_cache(maxsize=64)
    def gym(source: str) -> Any:
        return made(**json.loads(source))

    def score(request: dict[str, Any]) -> float | None:
        asked = gym(json.dumps(request["source"], sort_keys=True))
        entry = asked[request["index"]]
        with contextlib.suppress(Exception):
            return float(asked.score_answer(request["answer"], entry))
        return None

    return score


if __name__ == "__main__":
    serve(scorer)
