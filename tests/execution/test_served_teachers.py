"""A teacher behind a server: what is refused before anything is written."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from recipes import SCRATCH, Command, recipe

ROLLOUT = {"questions_per_step": 2, "n": 2, "max_tokens": 4}


def nobody() -> str:
    """The address of a port that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def served(teacher: dict[str, Any], **changes: Any) -> str:
    model = {**SCRATCH, "teachers": {"far": teacher}}
    return recipe(
        **{"model": model, "algorithm": {"name": "opd"}, "rollout": ROLLOUT, "training": {"max_steps": 1}, **changes}
    )


@pytest.mark.parametrize(
    ("teacher", "changes", "code", "says"),
    [
        ({"url": nobody()}, {}, 6, "model.teachers.far: The vLLM server at http://127.0.0.1"),
        ({"url": "http://somewhere.invalid:80"}, {}, 4, "is not on this machine, and every row would be sent there"),
        ({"url": "far"}, {}, 2, "model.teachers.far.url: http://HOST:PORT is expected, not far"),
        ({}, {}, 2, "model.teachers.far: give either name or url"),
        ({"url": nobody(), "name": "a"}, {}, 2, "model.teachers.far: give either name or url"),
        ({"url": nobody(), "adapter": "a"}, {}, 2, "adapter: it is of a model that is loaded here"),
        ({"url": nobody()}, {"rollout": {**ROLLOUT, "temperature": 0.7}}, 2, "log-probs at temperature 1: set rollout"),
        ({"url": nobody()}, {"algorithm": {"name": "gkd"}}, 2, "model.teachers.far.url: gkd compares whole distributions"),
    ],
)
def test_what_cannot_be_had_is_refused(
    posttrain: Command, teacher: dict[str, Any], changes: dict[str, Any], code: int, says: str
) -> None:
    ended, _, err = posttrain("run", served(teacher, **changes))
    assert (ended, says in err) == (code, True), err
    assert not Path("out").exists()
