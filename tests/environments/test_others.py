"""Environments of others: what a recipe may say of them, and what it needs leave for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from posttrain.environments.kinds.openenv import OpenEnvConfig
from posttrain.environments.kinds.verifiers import VerifiersConfig
from posttrain.errors import RecipeError, SetupError
from posttrain.recipe.code import check_permitted, own_paths
from posttrain.settings.doors.permissions import Permissions
from recipes import Command, recipe

OPENENV: dict[str, Any] = {"name": "openenv", "url": "ws://127.0.0.1:1", "observation": "said", "max_turns": 2}
VERIFIERS: dict[str, Any] = {"name": "verifiers", "id": "owner/some-environment", "max_turns": 2}


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def playing(environment: dict[str, Any]) -> str:
    return recipe(
        environment=environment,
        algorithm={"name": "grpo", "kl_coef": 0},
        data={"chat_template": False, "train": {"environment": {"rows": 4}}},
        rollout={"questions_per_step": 2, "n": 2, "max_tokens": 4},
        training={"max_steps": 1},
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"url": "127.0.0.1:8000"}, "ws://HOST:PORT is expected"),
        ({"url": "http://127.0.0.1:8000"}, "ws://HOST:PORT is expected"),
        ({"url": "ws://me:secret@127.0.0.1"}, "without a user"),
        ({"action": "call"}, "needs the format in which the policy writes calls"),
        ({"action": "tool"}, "'message' or 'call'"),
        ({"question": "{prompt}"}, "there is no field {prompt}"),
        ({"sessions": 0}, "sessions"),
        ({"retries": 4}, "less than or equal to 3"),
    ],
)
def test_what_an_openenv_server_cannot_be_asked(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says.replace("{", r"\{")):
        OpenEnvConfig(**{**OPENENV, **changes})


def test_a_server_on_another_machine_needs_leave() -> None:
    for url in ("ws://127.0.0.1:8000", "ws://localhost:8000/ws", "ws://[::1]:8000"):
        check_permitted(OpenEnvConfig(**{**OPENENV, "url": url}), Permissions())
    for url in ("wss://example.org", "ws://127.0.0.1.example.org:8000", "ws://10.0.0.2:8000"):
        away = OpenEnvConfig(**{**OPENENV, "url": url})
        with pytest.raises(RecipeError, match=r"is not on this machine.*--allow-remote-environment"):
            check_permitted(away, Permissions(remote_engine=True, code=True))
        check_permitted(away, Permissions(remote_environment=True))


def test_commands_ask_for_leave(posttrain: Command) -> None:
    away, code = {**OPENENV, "url": "ws://example.org"}, {**VERIFIERS, "python": "python3"}
    for command in (["run"], ["run", "--dry-run"], ["data"]):
        assert "--allow-remote-environment" in refused(posttrain, *command, playing(away))
        assert "some-environment (of verifiers, by python3)" in refused(posttrain, *command, playing(code))
    arguments = [word for key in ("url", "observation") for word in ("--set", f"{key}={away[key]}")]
    assert "--allow-remote-environment" in refused(posttrain, "env", "check", "openenv", *arguments)


def refused(posttrain: Command, *words: str) -> str:
    code, _, err = posttrain(*words)
    assert code == 2, err
    return err


def test_a_server_that_does_not_answer_is_told_with_its_address() -> None:
    with pytest.raises(SetupError, match=r"no OpenEnv server answers at http://127\.0\.0\.1:1/schema"):
        OpenEnvConfig(**OPENENV).build()


def test_environments_of_verifiers_are_code_and_their_interpreter_must_have_them(posttrain: Command) -> None:
    assert own_paths(VerifiersConfig(**VERIFIERS)) == ["owner/some-environment (of verifiers)"]
    code, out, err = posttrain("validate", playing({**VERIFIERS, "python": "python3"}))
    assert code == 0 and "with --allow-code" in out.lower(), err
    with pytest.raises(SetupError, match="no-such-python is no program"):
        VerifiersConfig(**VERIFIERS, python="no-such-python").build()
    with pytest.raises(ValidationError, match="should match"):
        VerifiersConfig(**{**VERIFIERS, "id": "../x y"})
