"""Programs in the jail: what an oracle and chance are paid, what is shown, and what decides."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from environments.played import SPLITS, chance, paid, row
from posttrain.environments.base import Call, Step, Turn
from posttrain.environments.kinds.python import Programs, PythonConfig, task_of
from posttrain.environments.trial import tried
from posttrain.rewards.isolated.jail.levels import LEVELS, offered
from recipes import SCRATCH, Command, recipe

pytestmark = pytest.mark.skipif(all(offered()[level] for level in LEVELS[:-1]), reason="this machine has no jail")
CONFIG = PythonConfig(max_turns=6, format="hermes", attempts=3, cost=0.125)


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    made = Programs(CONFIG)
    yield made
    made.close()


def play(programs: Programs, columns: dict[str, Any], turns: Sequence[Turn]) -> list[Step]:
    async def episode() -> list[Step]:
        environment, steps = programs(), list[Step]()
        await environment.reset(columns, 0)
        for turn in turns:
            steps.append(await environment.step(turn))
            if steps[-1].done:
                break
        await environment.close()
        return steps

    return asyncio.run(episode())


def written(right: str) -> str:
    return f"So it is\n```python\ndef f(x):\n    return {right}\n```\nas asked."


def test_an_oracle_is_right_and_chance_is_not(programs: Programs) -> None:
    guess = chance([written("x + 1"), written("2*x"), "hm", "```\nf\n```"])
    for number in range(3):
        task = task_of(row(number), CONFIG)
        [step] = play(programs, row(number), [Turn(written(task.right))])
        assert step.done and step.info["correct"] and step.reward == 1 and step.info["outcome"] == "passed"
        start: Any = None
        assert not any(step.info["correct"] for step in play(programs, row(number), [guess(start, []) for _ in range(3)]))


@pytest.mark.parametrize(
    ("text", "score", "outcome"),
    [
        ("def f(x)", -1.0, "compile"),
        ("", -1.0, "compile"),
        ("def g(x): return 1", -0.6, "runtime"),
        ("import os\nos._exit(0)", -0.6, "runtime"),
        ("def f(x): return -999", -0.3, "failed"),
        ("def f(x): return {{}}[x]", -0.6, "runtime"),
    ],
)
def test_what_a_program_is_paid(text: str, score: float, outcome: str, programs: Programs) -> None:
    steps = play(programs, row(0), [Turn(text)] * 3)
    assert len(steps) == 3 and steps[-1].done and steps[-1].reward == score and steps[-1].info["outcome"] == outcome


def test_a_program_that_knows_what_was_shown_alone_is_wrong(programs: Programs) -> None:
    task = task_of(row(1), CONFIG)
    shown = dict(test.removeprefix("assert f(").split(") == ") for test in task.visible)
    [step] = play(programs, row(1), [Turn(written(f"{{{', '.join(f'{x}: {y}' for x, y in shown.items())}}}.get(x)"))])
    assert step.done and step.info["outcome"] == "failed" and step.info["passed"] == 0 and step.reward == -0.3


def test_a_program_is_repaired_with_what_went_wrong(programs: Programs) -> None:
    task = task_of(row(2), CONFIG)
    wrong, broken, right = written("-1"), written("1 / 0"), written(task.right)
    steps = play(programs, row(2), [Turn(wrong), Turn(broken), Turn(right)])
    assert steps[0].messages[0]["content"] == f"A test fails: {task.visible[0]}"
    assert steps[1].messages[0]["content"].endswith("ZeroDivisionError: division by zero")
    assert steps[2].info["correct"] and paid(steps) == 1


def test_the_tool_runs_code_at_a_price(programs: Programs) -> None:
    calls = [Call("run", {"code": "print(6 * 7)"}), Call("run", {"code": "1 / 0"}), Call("run", {"code": "print(object())"})]
    [step] = play(programs, row(3), [Turn("", calls=calls)])
    said = [message["content"] for message in step.messages]
    assert said[0] == "42" and said[1].endswith("ZeroDivisionError: division by zero") and "at 0x…>" in said[2]
    assert step.reward == -3 * 0.125 and not step.done


def test_rows_have_tests_of_their_own(programs: Programs) -> None:
    columns = {"prompt": "Double it.", "tests": json.dumps({"inputs": ["2", "5"], "outputs": ["4\n", "10"]})}
    [step] = play(programs, columns, [Turn("```python\nprint(2 * int(input()))\n```")])
    assert step.info["correct"] and step.info["passed"] == 1
    with pytest.raises(ValueError, match="tests in the column tests"):
        play(programs, {"prompt": "Double it."}, [])


def test_splits_have_no_function_in_common() -> None:
    made = {split: {task_of(row(number, split), CONFIG).right for number in range(40)} for split in SPLITS}
    assert all(len(found) > 10 for found in made.values())
    assert len(set[str]().union(*made.values())) == sum(map(len, made.values()))


@pytest.mark.system
def test_it_is_a_function_of_its_row() -> None:
    for trial in tried(PythonConfig(max_turns=3, format="hermes", attempts=2)):
        assert trial.faults == []


def test_a_recipe_asks_for_a_jail_and_is_told_where_there_is_none(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = {"words": False, "question": "{task}", "around": "f=lambda x:{program}"}
    path = recipe(
        model={**SCRATCH, "tokenizer": {"characters": "0123456789:,=x*+"}},
        environment={"name": "python", "max_turns": 1, **lines},
        algorithm={"name": "grpo", "kl_coef": 0},
        data={"chat_template": False, "train": {"environment": {"rows": 4}}},
        rollout={"questions_per_step": 2, "n": 4, "max_tokens": 5, "log_completions": 1},
        training={"max_steps": 1},
    )
    cases = (("rlimits", 4, "--allow-unjailed-code"), ("chroot", 2, "environment.jail"), ("strongest", 0, ""))
    for jail, code, says in cases:
        ended, _, err = posttrain("validate", path, "--set", f"environment.jail={jail}")
        assert ended == code and says in err
    with monkeypatch.context() as patch:
        lacking = dict.fromkeys(LEVELS, "the kernel is old")
        patch.setattr("posttrain.rewards.isolated.jail.levels.offered", lambda: lacking)
        for jail in ("full", "landlock", "strongest"):
            ended, _, err = posttrain("validate", path, "--set", f"environment.jail={jail}")
            assert ended == 4 and "the kernel is old" in err
    ended, _, err = posttrain("run", path)
    assert ended == 0, err
    manifest = next(Path("out").rglob("manifest.json"))
    assert json.loads(manifest.read_text())["jails"]["python"] in LEVELS[:-1]
