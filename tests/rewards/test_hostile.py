"""Answers made to freeze, to fill the memory, or to be executed: each is out at its deadline, and nothing happens.

Deadlines are of the child's own time, and so is what is asserted of them: these tests pass on a machine that is busy.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from posttrain.rewards.grading import MathVerify, Verdict
from posttrain.rewards.isolated.clock import LONGEST
from posttrain.rewards.isolated.mathematics import child
from posttrain.rewards.isolated.mathematics.formulas import LONGEST as LONGEST_TEXT
from posttrain.rewards.kinds._form import Boxed
from rewards.test_child import together
from rewards.used import used, used_by

DEADLINE = 0.5
SLACK = 2.0  # seconds of processor time for a new child to start, and until an old one is seen to be over its deadline
FREEZING = [
    "10^{10^{10}}", "9^{9^{9^{9}}}", "9**9**9**9", "\\binom{10^8}{10^7}", "\\sum_{k=1}^{10^9} 1/k", "3^{10^8}", "3^{3e8}+1",
    "(10^7)!+1", "7**300000000", "\\int_0^1 \\int_0^1 \\int_0^1 e^{xyz} dx dy dz", "\\prod_{k=1}^{10^8} k",
    "{" * 5000, "(" * 5000 + "1" + ")" * 5000, "\\frac{1}{" * 800 + "1" + "}" * 800, "1" * 100_000, "x^" * 3000 + "x",
    "\\sqrt{" * 500 + "2" + "}" * 500, "1+" * 20_000 + "1", "0." + "3" * 50_000, "\\left(" * 2000,
]  # fmt: skip
OUT = frozenset({Verdict.TIMEOUT, Verdict.CRASH})
UNREAD = frozenset({Verdict.UNPARSABLE, Verdict.BAD_REFERENCE})
VERDICTS = {
    "9**9**9**9": frozenset({Verdict.WRONG}),
    **dict.fromkeys((text for text in FREEZING if len(text) > LONGEST_TEXT), UNREAD),
}
"""Of texts that are read in time, or are too long to be read; the others are out."""
EXECUTING = [
    "__import__('os').system('touch {canary}')",
    "().__class__.__base__.__subclasses__()",
    "open('{canary}','w').write('x')",
    "exec(\"open('{canary}','w')\")",
    "\\text{{__import__('os').system('touch {canary}')}}",
    "lambda: open('{canary}','w')",
    "sympy.sympify(\"__import__('os').system('touch {canary}')\")",
    "__import__('socket').create_connection(('127.0.0.1', {port}))",
    "__import__('os').environ['CANARY']",
    "1 if open('{canary}','w') else 2",
    "{{open('{canary}','w')}}",
    "$(touch {canary})",
    "`touch {canary}`",
    "'; touch {canary}; '",
    "\\input{{/etc/passwd}}",
    "\\write18{{touch {canary}}}",
]


AT_ONCE = 3
"""Freezing answers, of each form some, that are tried wherever tests are; the others in the system tier."""


@pytest.mark.parametrize(
    "number",
    [pytest.param(i, marks=[pytest.mark.system] * (i >= AT_ONCE), id=text[:12]) for i, text in enumerate(FREEZING)],
)
def test_a_freezing_answer_is_out_in_time_from_a_thread_and_others_are_not_affected(number: int, graders: Any) -> None:
    grader: MathVerify = graders
    text = f"\\boxed{{{FREEZING[number]}}}" if number % 2 else f"#### {FREEZING[number]}"
    allowed = VERDICTS.get(FREEZING[number], OUT)
    before = used() + used_by(grader._pool.pids[-1])
    [grade] = together(partial(grader.grade, text, "", "18"))
    assert grade.verdict in allowed and used() - before < DEADLINE + SLACK
    assert grader.grade("#### 18", "", "18").verdict is Verdict.RIGHT
    assert grader.grade("#### 18", "", FREEZING[number]).verdict in allowed
    assert grader.grade("\\boxed{18}", "", "18").verdict is Verdict.RIGHT


def test_hostile_answers_of_several_threads_do_not_wait_for_each_other() -> None:
    grader = MathVerify(deadline=20.0)
    hostile = [threading.Thread(target=grader.grade, args=("#### 9^{9^{9^{9}}}", "", "18")) for _ in range(4)]
    try:
        for thread in hostile:
            thread.start()
        while len(grader._pool._busy) < 4:
            time.sleep(0.01)
        assert grader.grade("\\boxed{18}", "", "18").verdict is Verdict.RIGHT
        assert len(grader._pool._busy) == 4  # none of theirs was over by then
    finally:
        grader.close()
    for thread in hostile:
        thread.join()


def test_a_warm_process_grades_one_answer_after_the_other() -> None:
    grader = MathVerify()
    try:
        before = grader._pool.pids
        assert {grader.grade(f"#### {i}", "", f"{i}").verdict for i in range(50)} == {Verdict.RIGHT}
        assert grader._pool.pids == before and len(before) == 1
    finally:
        grader.close()


def test_its_memory_is_limited(graders: Any) -> None:
    [pid] = graders._pool.pids
    graders.grade("#### 18", "", "18")
    [line] = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max address space")]
    assert line.split()[3:5] == [str(child.MEMORY)] * 2


def test_the_working_folder_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("random", "mpmath", "sympy", "posttrain"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    grader = MathVerify()
    try:
        assert grader.grade("\\boxed{\\frac{36}{2}}", "", "18").verdict is Verdict.RIGHT
    finally:
        grader.close()
    assert not (tmp_path / "ran").exists()


def test_its_console_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    grader = MathVerify()
    try:
        grader.grade("\\boxed{\\binom{20000}{10000}}", "", "18")
        grader.grade("\\boxed{x +* 2}", "", "((")
    finally:
        grader.close()
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def graders() -> Any:
    grader = MathVerify(deadline=DEADLINE)
    yield grader
    grader.close()


@pytest.mark.parametrize("number", range(len(EXECUTING)))
def test_nothing_of_an_answer_is_executed(number: int, graders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    monkeypatch.setenv("CANARY", "secret")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0.05)
        text = EXECUTING[number].format(canary=canary, port=listening.getsockname()[1])
        for written in (text, f"\\boxed{{{text}}}", f"#### {text}", f"${text}$"):
            grade = graders.grade(written, "", "18")
            assert grade.verdict is not Verdict.RIGHT and "secret" not in str(grade.value)
            assert graders.grade("18", "", written).verdict is not Verdict.RIGHT
        with pytest.raises(TimeoutError):
            listening.accept()
    assert not canary.exists()


def test_the_child_has_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    form = Boxed()
    try:
        [pid] = form._reader._pool.pids
        assert b"hf_secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    finally:
        form.close()


def test_a_child_that_hangs_ends_by_itself_when_its_parent_is_gone(tmp_path: Path) -> None:
    code = (
        "import os; from posttrain.rewards.grading import MathVerify; g = MathVerify(deadline=0.3)\n"
        "print(g._pool.pids[0], flush=True)\n"
        "import threading; threading.Timer(0.05, os._exit, (0,)).start(); g.grade('#### 9^{9^{9^{9}}}', '', '18')"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with suppress(psutil.NoSuchProcess):  # it ended; one that nobody waits for stays a zombie
        orphan = psutil.Process(int(child.stdout))
        while orphan.status() != psutil.STATUS_ZOMBIE:
            assert used_by(orphan.pid) < LONGEST * 0.3 + SLACK
            time.sleep(0.1)
