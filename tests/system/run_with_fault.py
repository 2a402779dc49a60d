"""`posttrain` with one fault in its in-process vLLM: FAULT ARGUMENTS… Started by test_engines_in_runs.py.

skipped: the weights of step 3 are not sent. stale_cache: at step 5 the prefix cache is not reset. hang: the engine stands
still in step 7. none: nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from posttrain.cli import app as cli
from posttrain.rollout.transports import TensorTransport
from posttrain.rollout.vllm.engine import VLLMEngine
from posttrain.rollout.vllm.in_process import InProcess

FAULT = sys.argv.pop(1)
syncing = -1


def around(owner: Any, name: str, fault: Callable[[], Any] | None) -> None:
    """Puts a fault in place of a method, where `fault` says so."""
    original = getattr(owner, name)

    def replaced(self: Any, *arguments: Any, **options: Any) -> Any:
        happened = fault() if fault is not None else False
        return None if happened else original(self, *arguments, **options)

    setattr(owner, name, replaced)


def noting(original: Any) -> Any:
    def sync(self: Any, model: Any, version: int) -> None:
        global syncing
        syncing = version
        original(self, model, version)
        if FAULT == "hang" and version == 7:
            step = self._backend._llm.llm_engine
            step.step = lambda: time.sleep(600)

    return sync


setattr(VLLMEngine, "sync", noting(VLLMEngine.sync))  # noqa: B010
if FAULT == "skipped":
    around(TensorTransport, "send", lambda: syncing == 3)
if FAULT == "stale_cache":
    around(InProcess, "reset_prefix_cache", lambda: syncing == 5)

if __name__ == "__main__":
    cli.main()
