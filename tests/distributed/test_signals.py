"""Signals that ask a run to end: at once, or held until nothing is half done; a second one ends the process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from posttrain.distributed.signals import SIGNALS, Interruption
from posttrain.errors import Interrupted


@pytest.mark.parametrize("number", SIGNALS)
def test_one_raises_where_it_comes_and_handlers_are_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"{number.name}: ended."), Interruption():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_one_that_is_held_is_remembered_and_let_through_later() -> None:
    with Interruption() as interruption:
        with interruption.deferred():
            with interruption.let_through():
                pass
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruption.by == "SIGTERM"
            with pytest.raises(Interrupted), interruption.let_through():
                pytest.fail("what is entered after it must not begin")
        with pytest.raises(Interrupted):
            interruption.check()


def test_let_through_it_raises_and_is_held_again_after() -> None:
    with Interruption() as interruption, interruption.deferred():
        with pytest.raises(Interrupted), interruption.let_through():
            os.kill(os.getpid(), signal.SIGUSR1)
        assert interruption._deferring and interruption.by == "SIGUSR1"


def in_a_child(do: Callable[[], None]) -> int:
    if (child := os.fork()) == 0:
        try:
            do()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_second_one_ends_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    def twice() -> None:
        with Interruption() as interruption, interruption.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)

    assert in_a_child(twice) == -signal.SIGTERM
    told = capfd.readouterr().err
    assert "SIGINT: saving a checkpoint" in told and "a second signal (SIGTERM): ended at once" in told


def test_in_another_thread_it_listens_to_none() -> None:
    before, inside = signal.getsignal(signal.SIGTERM), list[object]()

    def run() -> None:
        with Interruption() as interruption:
            interruption.check()
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert inside == [before]
