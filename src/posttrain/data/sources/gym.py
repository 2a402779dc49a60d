"""Questions of reasoning-gym, the procedural environments of arXiv:2505.24760, whose verifiers judge the answers.

They are made in a process of its own, in which Python's hashes are the same everywhere: some gyms draw from sets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec

from posttrain.data.sources.record import Record
from posttrain.errors import DataError, RecipeError, SetupError
from posttrain.settings.data.sources import GymSource

PROCESS = ("-P", "-m", "posttrain.data.sources.gym_made")


def environment() -> dict[str, str]:
    """Of a process in which a gym draws the same questions as in every other."""
    return {**os.environ, "PYTHONHASHSEED": "0"}


def records(source: GymSource) -> Iterator[Record]:
    """A record for each question, with reasoning-gym's own answer as `answer` and as the completion.

    Raises:
        SetupError: reasoning-gym is not installed.
        RecipeError: it knows no such gym, or not with these options.
        DataError: a question of this gym has no answer of its own to compare with.
    """
    for number, (question, answer) in enumerate(_made(source.model_dump_json()), 1):
        where = f"{source.gym}:{number}"
        if answer is None:
            raise DataError(f"{where}: reasoning-gym has no answer of its own to this question: take another gym.")
        yield Record(where, {"prompt": question, "answer": answer, "completion": answer})


def index_of(source: GymSource, question: str) -> int | None:
    """Which of the source's questions this one is, from 0 on, the first of equal ones; None: none."""
    return _by_question(source.model_dump_json()).get(question)


@lru_cache(maxsize=8)
def _by_question(source: str) -> Mapping[str, int]:
    questions = [question for question, _ in _made(source)]
    return {questions[i]: i for i in reversed(range(len(questions)))}


@lru_cache(maxsize=8)
def _made(source: str) -> list[tuple[str, str | None]]:
    if find_spec("reasoning_gym") is None:
        raise SetupError("gym: it needs the package reasoning_gym: pip install 'posttrain[reasoning-gym]'.")
    done = subprocess.run([sys.executable, *PROCESS, source], env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"gym: reasoning-gym does not start: {done.stderr.strip()[-300:]}")
    made = json.loads(done.stdout.splitlines()[-1])
    if "refused" in made:
        raise RecipeError(f"gym: {made['refused']}")
    return [(question, answer) for question, answer in made["questions"]]
