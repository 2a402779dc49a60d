"""Threads: a small model has one, and whoever says another number has that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from posttrain import load_recipe, run
from posttrain.execution.threads import SMALL, threads_for
from posttrain.train.watch.records import Listener
from recipes import recipe


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def within(parameters: int) -> int:
    with threads_for(torch.nn.Linear(1, parameters, bias=False, device="meta")):
        return torch.get_num_threads()


def test_a_small_model_has_one_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (within(SMALL - 1), within(SMALL), torch.get_num_threads()) == (1, 2, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert within(1) == 2


def test_a_run_of_a_small_model_has_one(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    seen = list[int]()

    class Looks(Listener):
        def on_step(self, step: int, metrics: object) -> None:
            seen.append(torch.get_num_threads())

    run(load_recipe(recipe()), listeners=[Looks()])
    assert seen == [1, 1] and torch.get_num_threads() == 2
