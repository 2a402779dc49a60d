"""The verifiers of reasoning-gym: its own answers are right, others are not, and what hangs ends at its deadline."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.sources import gym, read
from posttrain.data.sources.gym import environment
from posttrain.rewards.base import Group
from posttrain.rewards.grading import Verdict
from posttrain.rewards.isolated.pool import Pool
from posttrain.rewards.kinds import _gym
from posttrain.rewards.kinds._gym import GymGrader
from posttrain.rewards.kinds.task import TaskReward
from posttrain.rewards.options import Judged
from posttrain.settings.data import GymSource

SOURCE = GymSource(gym="chain_sum", rows=3)


class SharedPool(Pool):
    """One for all graders, whose requests say which gym they ask: its children take a second to start."""

    def close(self) -> None:
        """It is for the next grader."""


EVAL = ("countdown", "string_insertion", "puzzle24", "polynomial_multiplication")
"""Gyms that give answers to Python's eval, by themselves or by sympy."""
MADE = """
import json, sys
answers, sys.stdout = sys.stdout, sys.stderr
from posttrain.data.sources.gym_made import questions
print(json.dumps([questions(json.loads(source))["questions"] for source in json.load(sys.stdin)]), file=answers)
"""


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    """One process makes the questions of all sources here, and one pool of children judges."""
    pools = list[SharedPool]()

    def pool(*arguments: Any, **named: Any) -> Pool:
        pools[:] = pools or [SharedPool(*arguments, **named)]
        return pools[0]

    asked = [one.model_dump_json() for one in (SOURCE, *(GymSource(gym=name, rows=1) for name in EVAL))]
    done = subprocess.run(
        [sys.executable, "-c", MADE], input=json.dumps(asked), env=environment(), capture_output=True, text=True, check=True
    )
    made = dict(zip(asked, json.loads(done.stdout), strict=True))
    gym._by_question.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_gym, "Pool", pool)
        patch.setattr(gym, "_made", made.__getitem__)
        yield
    for one in pools:
        Pool.close(one)


@pytest.fixture(scope="module")
def grader() -> Iterator[GymGrader]:
    made = GymGrader(SOURCE)
    yield made
    made.close()


def test_the_gym_says_what_is_right(grader: GymGrader) -> None:
    for record in read(SOURCE):
        prompt, answer = record.columns["prompt"], record.columns["answer"]
        said = {
            answer: (Verdict.RIGHT, 1.0),
            f"<think>{answer} or 3</think> so <answer>\n{answer}\n</answer>.": (Verdict.RIGHT, 1.0),
            f"<answer>{answer}</answer> no: <answer>x</answer>": (Verdict.WRONG, 0.0),
            "": (Verdict.UNPARSABLE, 0.0),
            "<answer> </answer>": (Verdict.UNPARSABLE, 0.0),
        }
        for text, expected in said.items():
            grade = grader.grade(text, prompt, answer)
            assert (grade.verdict, grade.score) == expected, text
    assert grader.grade("2", "1 + 1 =", "2").verdict is Verdict.BAD_REFERENCE


def test_the_reward_is_the_gyms_score(grader: GymGrader) -> None:
    [record, *_] = read(SOURCE)
    columns, answer = record.columns, record.columns["answer"]
    reward = TaskReward().build(Judged(SOURCE, 16))
    texts = [answer, f"It is {answer}.", "none"]
    judged: Any = reward.judge(Group(completions=texts, tokens=[(1,)] * 3, finished=[True] * 3, columns=columns))
    reward.close()
    assert [one.right for one in judged] == [True, False, False]
    assert judged[0].score == 1 and 0 < judged[1].score < 1 and judged[2].score == 0


def test_an_answer_that_keeps_the_verifier_busy_is_out_at_its_deadline() -> None:
    source = GymSource(gym="countdown", rows=1)
    grader = GymGrader(source, deadline=0.5)
    [record] = read(source)
    grade = grader.grade("9**9**9**9", record.columns["prompt"], record.columns["answer"])
    again = grader.grade(record.columns["answer"], record.columns["prompt"], record.columns["answer"])
    grader.close()
    assert grade.verdict is Verdict.TIMEOUT and again.verdict is Verdict.RIGHT


@pytest.mark.parametrize("name", EVAL)
def test_an_answer_is_never_run(name: str, tmp_path: Path) -> None:
    source = GymSource(gym=name, rows=1)
    grader = GymGrader(source)
    [record] = read(source)
    made = tmp_path / "made"
    for text in (
        f"__import__('os').system('touch {made}')",
        f"__import__('os').system('touch {made}') + 3!",
        f"open('{made}', 'w')",
        f"[open('{made}', 'w') for i in [1]]",
        f"(lambda: open('{made}', 'w'))()",
        f'S(\'open("{made}", "w")\')',
        f'exec(\'open("{made}", "w")\')',
        f'sin(\'open("{made}", "w")\')',
    ):
        grade = grader.grade(text, record.columns["prompt"], record.columns["answer"])
        assert grade.verdict in (Verdict.WRONG, Verdict.UNPARSABLE) and not made.exists(), text
    right = grader.grade(record.columns["answer"], record.columns["prompt"], record.columns["answer"])
    grader.close()
    assert right.verdict is Verdict.RIGHT


EVERY = """
import json, sys
answers, sys.stdout = sys.stdout, sys.stderr
from reasoning_gym.factory import DATASETS
from posttrain.data.sources.gym_made import questions
from posttrain.rewards.isolated.gym_child import scorer
score, found = scorer(), {}
for name in sorted(DATASETS):
    source = {"gym": name, "rows": 2, "seed": 5, "options": {}}
    for index, (_, answer) in enumerate(questions(source).get("questions", [["", None]])):
        asked = {"source": source, "index": index, "answer": answer}
        found.setdefault(name, []).append(None if answer is None else score(asked))
print(json.dumps(found), file=answers)
"""


@pytest.mark.system
def test_every_gym_calls_its_own_answer_right() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scores: dict[str, list[float | None]] = json.loads(done.stdout)
    without = [name for name, given in scores.items() if None in given]
    assert without == ["boxnet", "composite", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"]
    assert [name for name in scores if name not in without and scores[name] != [1, 1]] == [] and len(scores) == 106
