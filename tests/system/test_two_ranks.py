"""One rank, and two gloo ranks in every mode, train the same parameters, for every algorithm (with DeepSpeed, of those that
need the same one): by SGD, which shows a wrong scale.

All that a mode has to show happens in one launch of train_everywhere.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases import NAMES, first_of_needs
from posttrain.algorithms import example_values
from system.processes import environment
from system.train_everywhere import MODES_OF_ALL, PLAINLY

HERE = Path(__file__).parent
pytestmark = pytest.mark.system
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
BOUNDS = {"ddp": 1e-9, "fsdp2": 1e-9, "zero2": 3e-3, "zero3": 3e-3}
"""Of the largest difference, by the largest change. DeepSpeed keeps its parameters in float32, and some of these changes are
a thousandth of the parameters."""
BESIDES = ["grpo of two updates", "prefix_rft of two updates", "uneven", "lora", "offload", "bad None", "half"]
ALL = {True: NAMES, False: first_of_needs(example_values())}
CASES = [(mode, name) for mode in BOUNDS for name in [*ALL[mode in MODES_OF_ALL], *BESIDES]] + [
    ("ddp", rules) for rules in ("rules", "rules that learn")
]
Trained = tuple[dict[str, np.ndarray], dict[str, Any]]


def _start(launcher: list[str], target: Path, mode: str) -> Trained:
    command = [sys.executable, *launcher, str(HERE / "train_everywhere.py"), str(target), mode]
    done = subprocess.run(command, env=environment(PYTHONPATH=str(HERE.parent)), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(np.load(target)), json.loads(target.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return _start([], tmp_path_factory.mktemp("one") / "one.npz", "ddp")


@pytest.fixture(scope="module")
def by_mode(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    return cache(lambda mode: _start(TWO, tmp_path_factory.mktemp(mode) / "two.npz", mode))


@pytest.fixture(params=BOUNDS)
def two(request: pytest.FixtureRequest, by_mode: Callable[[str], Trained]) -> tuple[str, Trained]:
    return request.param, by_mode(request.param)


def test_there_really_were_two_ranks_and_each_held_its_share(one: Trained, two: tuple[str, Trained]) -> None:
    (_, alone), (mode, (_, facts)) = one, two
    assert (alone["world"], alone["mode"]) == (1, "one process")
    assert (facts["world"], facts["mode"]) == (2, mode)
    here, whole = facts["held"]
    assert here == (whole / 2 if mode in ("zero3", "fsdp2") else whole)


def test_the_numbers_of_micro_batches_were_unequal(one: Trained, two: tuple[str, Trained]) -> None:
    (_, alone), (_, (_, facts)) = one, two
    assert facts["uneven"] == [1, 2, 3, 1, 1] and alone["uneven"] == [2, 4, 6, 2, 1]  # the last has a rank without rows
    assert facts["sft"] != alone["sft"]


def test_a_run_goes_on_from_its_checkpoint_as_if_never_broken_off(one: Trained, two: tuple[str, Trained]) -> None:
    assert one[1]["goes on"] and two[1][1]["goes on"]


@pytest.mark.parametrize(("two", "name"), CASES, indirect=["two"])
def test_two_ranks_train_what_one_trains(name: str, one: Trained, two: tuple[str, Trained]) -> None:
    (alone, _), (mode, (together, _)) = one, two
    largest = np.abs(alone[name]).max()
    assert largest > 1e-6
    assert np.abs(alone[name] - together[name]).max() / largest < BOUNDS[mode]


@pytest.mark.parametrize("name", PLAINLY)
def test_two_ranks_train_with_packed_rows_and_one_pass_what_one_trains_without(
    name: str, one: Trained, two: tuple[str, Trained]
) -> None:
    (alone, _), (mode, (together, _)) = one, two
    for plain, fast in ((alone, together), (together, alone), (together, together)):
        difference = np.abs(plain[f"{name} plainly"] - fast[name]).max()
        assert difference / np.abs(alone[name]).max() < BOUNDS[mode]


def test_an_adapter_that_ranks_share_is_merged_and_saved_whole(one: Trained, two: tuple[str, Trained]) -> None:
    (alone, _), (mode, (together, _)) = one, two
    assert np.abs(alone["saved"] - together["saved"]).max() < max(BOUNDS[mode] * np.abs(alone["lora"]).max(), 1e-12)


def test_the_self_check_refuses_what_loses_micro_batches(two: tuple[str, Trained]) -> None:
    mode, (_, facts) = two
    assert facts["check refuses"] == mode.startswith("zero")


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_on_one_rank_is_left_out_on_all(what: str, one: Trained, two: tuple[str, Trained]) -> None:
    """Parameters, moments and schedule are as if it had never been, to the last bit."""
    for trained, _ in (one, two[1]):
        assert np.array_equal(trained[f"bad {what}"], trained["bad None"])
        assert np.abs(trained["bad None"]).max() > 1e-3
