"""Children: each request has its own answer or none, and nothing that a child does holds up its parent."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest

from posttrain.errors import SetupError
from posttrain.rewards.isolated.child import ChildDied
from posttrain.rewards.isolated.pool import Pool
from rewards.used import used, used_by

SCRIPT = """
import json, os, signal, sys, time

def say(said):
    print(json.dumps(said), flush=True)

say("ready")
for line in sys.stdin:
    asked = json.loads(line)
    what = asked["request"]
    said = {"id": asked["id"], "answer": os.getpid() if what.startswith("pid") else what}
    if what == "dies":
        sys.exit()
    if what == "keeps the pipe" and os.fork() == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    if what in ("hangs", "keeps the pipe"):
        time.sleep(60)
    if what == "stands":
        os.kill(os.getpid(), signal.SIGSTOP)
    if what == "computes beside another":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        if os.fork() == 0:
            while time.process_time() < 10:
                pass
            os._exit(0)
        os.nice(8)
    if what.startswith("computes"):
        end = time.process_time() + (30 if what == "computes on" else 0.3)
        while time.process_time() < end:
            pass
    if what == "late":
        time.sleep(0.3)
    while what == "pid when told" and not os.path.exists(os.path.join(sys.argv[1], "told")):
        time.sleep(0.01)
    if what == "twice":
        say(said)
    if what == "of another":
        said["id"] -= 1
    if what == "noise":
        print("noise", flush=True)
    say([said] if what == "a list" else said)
"""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    made = Pool([sys.executable, "-c", SCRIPT, str(tmp_path)], what="The test's child")
    yield made
    made.close()


@pytest.fixture
def keepers(tmp_path: Path) -> Iterator[Callable[[], list[int]]]:
    """The processes that keep the pipe of one that is gone."""

    def keepers() -> list[int]:
        ours = [one.pid for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in (one.info["cmdline"] or ())]
        return [pid for pid in ours if os.getsid(pid) == pid]

    yield keepers
    for pid in keepers():
        os.kill(pid, signal.SIGKILL)


def test_the_same_process_answers_again_and_again(pool: Pool) -> None:
    assert [pool.ask("pid", 5.0) for _ in range(20)] == pool.pids * 20 and len(pool.pids) == 1


@pytest.mark.parametrize("request_", ["dies", "of another", "noise", "a list"])
def test_what_is_no_answer_to_the_request_is_none(pool: Pool, request_: str) -> None:
    [before] = pool.pids
    with pytest.raises(ChildDied):
        pool.ask(request_, 5.0)
    assert pool.ask("a", 5.0) == "a" and before not in pool.pids


def test_an_answer_too_many_is_not_that_to_the_next_request(pool: Pool) -> None:
    assert pool.ask("twice", 5.0) == "twice"
    with pytest.raises(ChildDied):
        pool.ask("a", 5.0)
    assert [pool.ask(text, 5.0) for text in "bcd"] == ["b", "c", "d"]


def test_a_request_that_was_interrupted_leaves_no_answer_behind(pool: Pool) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            pool.ask("late", 5.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [pool.ask(text, 5.0) for text in "abc"] == ["a", "b", "c"]


@pytest.mark.parametrize("request_", ["hangs", "keeps the pipe", "stands", "computes on"])
def test_a_hang_ends_at_its_deadline_whoever_keeps_the_pipe_open(
    pool: Pool, request_: str, keepers: Callable[[], list[int]]
) -> None:
    [before] = pool.pids
    with pytest.raises(TimeoutError):
        pool.ask(request_, 0.3)
    assert pool.pids and before not in pool.pids  # the next one is on its way
    assert pool.ask("a", 5.0) == "a" and len(keepers()) == (request_ == "keeps the pipe")


def test_a_deadline_is_of_the_time_that_its_process_computes(pool: Pool) -> None:
    before = used() + used_by(*pool.pids)
    with pytest.raises(TimeoutError):
        pool.ask("computes on", 0.5)
    assert 0.4 < used() - before < 2.5


def test_waiting_for_a_busy_processor_is_not_counted(pool: Pool) -> None:
    """A process that shares its processor with a busier one needs 0.3 s of it, and is given them in two seconds at least."""
    deadline, began = 1.5, time.monotonic()
    assert pool.ask("computes beside another", deadline) == "computes beside another"
    assert time.monotonic() - began > deadline


@pytest.mark.parametrize("request_", ["hangs", "keeps the pipe"])
def test_closing_ends_a_request_under_way(pool: Pool, request_: str) -> None:
    came: list[BaseException] = []

    def ask() -> None:
        try:
            pool.ask(request_, 30.0)
        except ChildDied as error:
            came.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not pool._busy:
        time.sleep(0.01)
    pool.close()
    thread.join()
    assert len(came) == 1 and not pool.pids
    with pytest.raises(ChildDied):
        pool.ask("a", 5.0)


def test_each_of_several_threads_has_a_child(pool: Pool, tmp_path: Path) -> None:
    def tell() -> None:
        while len(pool._busy) < 3:
            time.sleep(0.01)
        (tmp_path / "told").touch()

    *came, _ = together(*[lambda: pool.ask("pid when told", 20.0)] * 3, tell)
    assert len(set(came)) == 3 and sorted(came) == sorted(pool.pids)


def together(*calls: Callable[[], Any]) -> list[Any]:
    """What calls from as many threads return."""
    came: list[Any] = [None] * len(calls)

    def call(number: int) -> None:
        came[number] = calls[number]()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return came


@pytest.mark.parametrize(
    ("code", "says"), [("print('\"no luck\"')", "no luck"), ("1/0", "it did not start. Try: "), ("", "it did not start")]
)
def test_what_does_not_start_is_named(code: str, says: str) -> None:
    with pytest.raises(SetupError, match=f"The test's child: {says}"):
        Pool([sys.executable, "-c", code], what="The test's child", quiet=True)
