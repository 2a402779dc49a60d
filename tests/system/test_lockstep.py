"""Two ranks sample in lockstep: as many forward passes on each, and the answers and evaluations of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from system.sample_everywhere import DEALT

HERE = Path(__file__).parent
pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    target = tmp_path_factory.mktemp("lockstep") / "facts.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        [*command, str(HERE / "sample_everywhere.py"), str(target)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(target.read_text())


@pytest.mark.parametrize("name", DEALT)
def test_all_ranks_make_as_many_forward_passes(facts: dict[str, Any], name: str) -> None:
    (first_alone, first), (second_alone, second) = [[count for _, count in seen] for seen in facts["dealt"][name]]
    assert facts["world"] == 2 and first == second == max(first_alone, second_alone)
    assert (first_alone == second_alone) == (name == "none at all")


@pytest.mark.parametrize("name", DEALT)
def test_the_answers_are_those_of_one_process(facts: dict[str, Any], name: str) -> None:
    for dealt, seen in zip(DEALT[name], facts["dealt"][name], strict=True):
        for answers, _ in seen:
            same_answers(answers, [facts["expected"][i] for i in dealt])


def test_a_model_that_is_spread_over_the_ranks_gives_them_too(facts: dict[str, Any]) -> None:
    for dealt, (spread, answers) in zip(DEALT["unequal"], facts["spread"], strict=True):
        assert spread
        same_answers(answers, [facts["expected"][i] for i in dealt])


def same_answers(found: list[Any], expected: list[Any]) -> None:
    assert [[one[0::2] for one in group] for group in found] == [[one[0::2] for one in group] for group in expected]
    for group, whole in zip(found, expected, strict=True):
        for (_, logps, _), (_, others, _) in zip(group, whole, strict=True):
            assert logps == pytest.approx(others, abs=1e-6)


@pytest.mark.parametrize("count", [7, 1])
def test_every_rank_has_the_evaluation_of_one_process_and_grades_its_share(facts: dict[str, Any], count: int) -> None:
    (first_same, first), (second_same, second) = facts["evaluations"][str(count)]
    assert first_same and second_same and 0 < facts["pass@1"] < 1
    prompts = [f"{i}+{i}=" for i in range(count)]
    assert first == [prompt for prompt in prompts[::2] for _ in range(3)]
    assert second == [prompt for prompt in prompts[1::2] for _ in range(3)]
