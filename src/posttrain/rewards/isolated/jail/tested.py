"""What tests say of a program that a model wrote: it does not compile, it fails, it is wrong, or it is right."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from posttrain.rewards.isolated.jail.jail import Jail
from posttrain.rewards.values import Refused

Outcome = Literal["compile", "runtime", "failed", "passed"]
SCORES: Mapping[Outcome, float] = {"compile": -1.0, "runtime": -0.6, "failed": -0.3, "passed": 1.0}
"""CodeRL's (arXiv:2207.01780)."""
KEPT = 4096  # programs whose outcome is remembered
LONGEST = 100_000  # characters of a program


@dataclass(frozen=True, slots=True)
class Tested:
    """The outcome, the share of tests that passed, and what is said of the first that did not."""

    outcome: Outcome
    share: float
    says: str = ""

    def score(self, by: Literal["outcome", "share"]) -> float:
        """CodeRL's score of the outcome, or the share."""
        return SCORES[self.outcome] if by == "outcome" else self.share


class Tester:
    """Tests programs, each with the same tests once.

    Args:
        jail: where they run; closed with this.
    """

    def __init__(self, jail: Jail) -> None:
        self.jail = jail
        self._known = dict[tuple[str, str], Tested]()
        self._lock = threading.Lock()

    def of(self, program: str, tests: Any) -> Tested:
        """What tests say of a program.

        Args:
            program: its text.
            tests: statements of Python, as a text or one text for each test; or {"inputs": […], "outputs": […]}, what a
                program reads and what it is to print. Either may be JSON.

        Raises:
            Refused: the tests are none, or cannot be run.
            TimeoutError, ChildDied: nobody knows.
        """
        key = (program, json.dumps(tests, sort_keys=True))
        with self._lock:
            known = self._known.get(key)
        if known is not None:
            return known
        given = read_tests(tests)
        if len(program) > LONGEST or "\0" in program:
            found, late = Tested("compile", 0.0, f"a program has at most {LONGEST} characters, and no NUL"), False
        elif isinstance(given, Mapping):
            found, late = self._by_output(program, given["inputs"], given["outputs"])
        else:
            found, late = self._by_calls(program, given)
        with self._lock:
            if not late:  # which another time may be otherwise
                self._known[key] = found
            while len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
        return found

    def close(self) -> None:
        """Ends the jail."""
        self.jail.close()

    def _by_calls(self, program: str, tests: str | Sequence[str]) -> tuple[Tested, bool]:
        said = self.jail.check(program, tests)
        if "bad" in said:
            raise Refused(f"its tests cannot be run: {said['bad']}")
        late = bool(said.get("late"))
        if said["state"] != "tested":
            outcome: Outcome = "compile" if said["state"] == "compile" else "runtime"
            return Tested(outcome, 0.0, said.get("says") or _gone(late)), late
        outcomes = list[str](said["outcomes"])
        share = outcomes.count("passed") / len(outcomes)
        if share == 1:
            return Tested("passed", 1.0), late
        runtime = {"raised", "gone"} & {*outcomes}
        says = f"{said['says']}\n{_gone(late)}" if "gone" in outcomes else said["says"]
        return Tested("runtime" if runtime else "failed", share, says.strip()), late

    def _by_output(self, program: str, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[Tested, bool]:
        worst: Outcome = "passed"
        passed, says, late = 0, "", False
        for given, expected in zip(inputs, outputs, strict=True):
            ran = self.jail.run(program, given)
            late = late or ran.ended == "time"
            if (ran.ended, ran.code) == ("exit", 2):
                return Tested("compile", 0.0, ran.err), False
            fine = (ran.ended, ran.code) == ("exit", 0)
            passed += (right := fine and _lines(ran.out) == _lines(expected))
            if not right:
                worst = "runtime" if not fine or worst == "runtime" else "failed"
                says = says or (f"printed {ran.out.strip()[:200]!r}" if fine else ran.err.strip() or _gone(late))
        return Tested(worst, passed / len(inputs), says), late


def read_tests(given: Any) -> str | list[str] | Mapping[str, list[str]]:
    """The tests of a row.

    Raises:
        Refused: there are none.
    """
    if isinstance(given, str) and given.lstrip()[:1] in ("[", "{"):
        with contextlib.suppress(ValueError):  # it is Python
            given = json.loads(given)
    if isinstance(given, str) and given.strip():
        return given
    if isinstance(given, Mapping) and {"inputs", "outputs"} <= {*given}:
        inputs, outputs = ([str(one) for one in given[name]] for name in ("inputs", "outputs"))
        if inputs and len(inputs) == len(outputs):
            return {"inputs": inputs, "outputs": outputs}
    if isinstance(given, (list, tuple)) and given and all(isinstance(one, str) for one in given):
        return list(given)
    raise Refused("the column tests has Python's statements, a list of them, or {inputs: […], outputs: […]} of one length")


def _gone(late: bool) -> str:
    return "it took too long" if late else "it ended before it had answered"


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
