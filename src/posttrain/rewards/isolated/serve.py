"""The other side of `child.Child`: reads requests and writes answers, whatever else is read or printed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

from posttrain.rewards.values import as_text


def serve(make: Callable[[], Callable[[Any], Any]]) -> None:
    """Answers until the input ends. `make` gives the function that does; what it raises is told in place of "ready"."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nobody else reads a request
    os.dup2(2, 1)  # a print of anybody's is no answer
    try:
        answer = make()
    except Exception as error:
        print(json.dumps(as_text(error)), file=answers, flush=True)
        return
    print(json.dumps("ready"), file=answers, flush=True)
    for line in requests:
        asked = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, asked["longest"] + 1)  # ends this process, should its parent be gone by then
        answered = answer(asked["request"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps({"id": asked["id"], "answer": answered}), file=answers, flush=True)
