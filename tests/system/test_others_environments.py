"""Environments of others, with their packages: an OpenEnv server on the loopback, and verifiers' v0 by its interpreter."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from posttrain.environments.base import Call, Start, Step, Turn
from posttrain.environments.kinds.openenv import OpenEnvConfig
from posttrain.environments.kinds.verifiers import VerifiersConfig
from posttrain.environments.options import EnvironmentConfig
from posttrain.environments.sessions import Failure, Sessions
from posttrain.environments.trial import tried
from posttrain.errors import SetupError
from system.processes import environment

pytestmark = pytest.mark.system
HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
PYTHON = ROOT / ".venv-others/bin/python"
READY = "Echo Env environment ready!"
CLIENT = """
import asyncio, json, sys
from openenv.core.generic_client import GenericEnvClient

async def main():
    async with GenericEnvClient(base_url=sys.argv[1]) as client:
        came = [await client.reset(seed=1)]
        for text in sys.argv[2:]:
            came.append(await client.step({"message": text}))
    print(json.dumps([[one.observation["echoed_message"], one.reward, one.done] for one in came]))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The environment that `openenv init` makes, which says back what it is told; it has one session at a time."""
    assert PYTHON.is_file(), "make setup-others"
    folder = tmp_path_factory.mktemp("openenv")
    without_uv = {**os.environ, "PATH": os.defpath}  # which it would have look up packages
    words = [PYTHON.with_name("openenv"), "init", "echo_env"]
    subprocess.run(words, cwd=folder, env=without_uv, check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [PYTHON, "-m", "echo_env.server.app", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
            try:
                httpx.get(f"http://127.0.0.1:{port}/schema", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield f"ws://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def openenv(url: str, **told: Any) -> OpenEnvConfig:
    return OpenEnvConfig(**{"url": url, "observation": "echoed_message", "max_turns": 3, **told})


def played(
    config: EnvironmentConfig, *episodes: list[Turn], rows: Sequence[tuple[str, int]] = (("train", 2),)
) -> list[list[Any]]:
    """What one after the other is said, of these splits and numbers in turn."""
    said = list[list[Any]]()
    with Sessions.of(config) as sessions:
        for turns, (split, number) in zip(episodes, itertools.cycle(rows)):
            [(one, start)] = sessions.reset([({"split": split, "seed": 0, "number": number}, 1)])
            said.append([start])
            for turn in turns:
                assert one is not None
                said[-1] += sessions.step([(one, turn)])
            sessions.end([one] if one is not None else [])
    return said


def user(text: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": text},)


def test_an_openenv_server_is_played_as_its_own_client_plays_it(server: str) -> None:
    texts = ["hello", "1", "é" * 20]
    [[start, *steps], again] = played(openenv(server, right=1.5), *[[Turn(text) for text in texts]] * 2)
    assert [start, *steps] == again and start == Start(user(READY))
    done = subprocess.run([PYTHON, "-c", CLIENT, server, *texts], capture_output=True, text=True, check=True)
    [[ready, *_], *theirs] = json.loads(done.stdout)
    assert ready == READY
    assert [[one.messages[0]["content"], one.reward, one.done] for one in steps] == theirs
    assert [one.info["correct"] for one in steps] == [False, False, True]


def test_what_is_wrong_with_a_call_is_said_and_the_rest_goes_on(server: str) -> None:
    config = openenv(server, action="call", format="hermes", key="echo", observation=["message_length"])
    calls = [
        Call("echo", {"message": "abc"}),
        Call("echo", {"message": [3]}),
        Call("say", {}),
        Call("", fault="it is cut off"),
        Call("echo", {"0": "b"}),
    ]
    [[start, step, last]] = played(config, [Turn("", calls=calls), Turn("That is all.")])
    [tool] = start.tools
    assert tool["function"]["name"] == "echo" and list(tool["function"]["parameters"]["properties"]) == ["message"]
    assert [one["content"] for one in step.messages] == [
        '{"message_length": 3}',
        "echo was not called: message: Input should be a valid string.",
        "There is no tool 'say', but echo.",
        "The call could not be read: it is cut off.",
        '{"message_length": 1}',
    ]
    assert {one["role"] for one in step.messages} == {"tool"} and step.reward == pytest.approx(0.4) and not step.done
    assert last == Step((), None, True)


def test_what_does_not_fit_the_server_is_told(server: str) -> None:
    with pytest.raises(SetupError, match="has no 'text', but message"):
        openenv(server, key="text").build()
    [[failed]] = played(openenv(server, observation="said"), [])
    assert isinstance(failed, Failure) and "has no 'said', but metadata, echoed_message, message_length" in failed.reason


def test_more_sessions_than_the_server_has_are_failures_with_the_key_that_says_so(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posttrain.environments.kinds.openenv.WAITING", 3.0)
    with Sessions.of(openenv(server, deadline=60.0)) as sessions:
        begun = sessions.reset([({}, 1), ({}, 2)])
        sessions.end([one for one, _ in begun if one is not None])
    [failed] = [start for _, start in begun if isinstance(start, Failure)]
    assert "see environment.sessions" in failed.reason and "capacity" in failed.reason


def test_an_openenv_server_keeps_to_what_an_environment_is(server: str) -> None:
    assert [fault for trial in tried(openenv(server)) for fault in trial.faults] == []


def verifiers(kind: str, *, max_turns: int = 5, **arguments: Any) -> VerifiersConfig:
    assert PYTHON.is_file(), "make setup-others"
    return VerifiersConfig(
        id="verifiers_environments", args={"kind": kind, **arguments}, python=str(PYTHON), max_turns=max_turns, concurrency=1
    )


@pytest.fixture
def with_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their interpreter finds the module of the tests."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.usefixtures("with_theirs")
def test_single_turns_are_graded_by_their_rubric_and_a_grade_that_fails_is_no_zero() -> None:
    turns = [[Turn("4")], [Turn("boom")], [Turn("hm 5")], [], []]
    rows = [*[("train", 2)] * 3, ("held_out", 1), ("held_out", 2)]
    [start, step], [_, failed], [_, wrong], [held], [beyond] = played(verifiers("single"), *turns, rows=rows)
    [[none]] = played(verifiers("single", held_out=0), [], rows=[("held_out", 2)])
    assert start.messages == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2"})
    assert (step.reward, step.done, step.info["correct"]) == (1.1, True, True)
    assert step.info["scores"] == {"right": 1.0, "short": 0.5, "num_turns": 1.0}
    assert failed == Failure("fault", "a reward function failed: right: raised RuntimeError: no grade")
    assert (wrong.reward, wrong.done, wrong.info["correct"]) == (0.0, True, False)
    assert held.messages[-1]["content"] == "3+3"
    assert isinstance(beyond, Failure) and "the split held_out has 2 tasks" in beyond.reason
    assert isinstance(none, Failure) and "it has no eval_dataset" in none.reason


@pytest.mark.usefixtures("with_theirs")
def test_several_turns_end_as_theirs_do() -> None:
    turns = [[Turn("a"), Turn("b"), Turn("4")], [Turn("stop")], [Turn("bye")], [Turn("raise")]]
    to_the_end, stopped, final, broken = played(verifiers("counting"), *turns)
    assert [one.messages for one in to_the_end[1:]] == [user("1: a"), user("2: b"), ()]
    assert [(one.reward, one.done) for one in to_the_end[1:]] == [(None, False), (None, False), (1.1, True)]
    assert stopped[1].done and stopped[1].messages == () and stopped[1].reward == 0.0
    assert final[1].done and final[1].messages == user("1: bye")
    assert broken[1] == Failure("fault", "raised RuntimeError: broken")
    [[_, _, last]] = played(verifiers("counting", max_turns=2), [Turn("a"), Turn("4")])
    assert (last.reward, last.done, last.messages) == (1.1, False, user("2: 4")), "graded at our own limit of turns too"


@pytest.mark.usefixtures("with_theirs")
def test_tools_are_called_and_what_cannot_be_read_is_told() -> None:
    calls = [Call("add", {"a": 1, "b": 2}), Call("", fault="it is cut off"), Call("sub", {}), Call("add", {"c": 1})]
    unread = Turn("", calls=[Call("", fault="it is cut off")])
    [[start, first, second, last]] = played(verifiers("tools"), [Turn("", calls=calls), unread, Turn("4")])
    assert [tool["function"]["name"] for tool in start.tools] == ["add"]
    assert [(one["name"], one["content"]) for one in first.messages] == [
        ("add", "3"),
        ("unknown", "The call could not be read: it is cut off."),
        ("unknown", "'sub'"),
        ("add", "add() got an unexpected keyword argument 'c'"),
    ]
    assert [one["name"] for one in second.messages] == ["unknown"] and not second.done
    assert last.done and last.reward == 1.1 and last.info["scores"]["total_tool_calls"] == 3.0


@pytest.mark.usefixtures("with_theirs")
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("own prompts", "has its own get_prompt_messages"),
        ("compared", "compare rollouts with each other"),
        ("group", "is a EnvGroup, no MultiTurnEnv"),
        ("unknown", "Failed to load environment"),
    ],
)
def test_environments_that_another_loop_cannot_play_are_refused(kind: str, says: str) -> None:
    with pytest.raises(SetupError, match=says):
        verifiers(kind).build()


def test_an_interpreter_without_verifiers_is_told() -> None:
    with pytest.raises(SetupError, match=r"its v0, is not in .*pip install 'verifiers==0\.3\.1'"):
        VerifiersConfig(id="any", python=sys.executable, max_turns=1).build()


@pytest.mark.usefixtures("with_theirs")
def test_an_environment_of_verifiers_keeps_to_what_an_environment_is() -> None:
    assert [fault for trial in tried(verifiers("tools")) for fault in trial.faults] == []


@pytest.mark.usefixtures("with_theirs")
@pytest.mark.parametrize("name", ["openenv", "verifiers"])
def test_runs_learn_from_them(name: str, server: str, tmp_path: Path) -> None:
    config = openenv(server, retries=1) if name == "openenv" else verifiers("counting")
    values = {
        "model": {"from_scratch": {"hidden_size": 32, "num_attention_heads": 1}, "tokenizer": "bytes"},
        "environment": config.model_dump(exclude_defaults=True) | {"name": name, "turn_tokens": 4},
        "algorithm": {"name": "grpo", "kl_coef": 0},
        "data": {"chat_template": False, "train": {"environment": {"rows": 4}}},
        "rollout": {"questions_per_step": 2, "n": 2, "max_tokens": 16, "log_completions": 1},
        "training": {"max_steps": 2, "learning_rate": 1e-3},
        "output_dir": "out",
    }
    if name == "verifiers":
        values["environment"]["args"]["system"] = None
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    words = [sys.executable, "-m", "posttrain", "run", "recipe.yaml", "--allow-code"]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment(PYTHONPATH=os.environ["PYTHONPATH"]), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert all(one["env/faults"] == 0 and one["env/turns"] > 1 and one["logp_diff/max"] < 1e-4 for one in lines)
    [first, *_] = (tmp_path / "out/completions/step-000001.jsonl").read_text().splitlines()
    assert json.loads(first)["prompt"] in ([READY] if name == "openenv" else [f"{i}+{i}" for i in range(4)])
    assert json.loads(first)["turns"][0]["others"]
