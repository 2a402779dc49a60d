"""Programs are run behind bars, and judged by tests that they never see."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Literal

from pydantic import AfterValidator

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.isolated.child import ChildDied
from posttrain.rewards.isolated.jail.options import Jailed
from posttrain.rewards.isolated.jail.tested import Tested, Tester
from posttrain.rewards.options import Judged, RewardConfig
from posttrain.rewards.reading.answers import after_thinking
from posttrain.rewards.values import Refused

DEADLINE = 3600.0  # seconds for a group: each of its programs has a deadline of its own


def _with_program(text: str) -> str:
    if "{program}" not in text:
        raise ValueError("it lacks {program}, which is the policy's")
    return text


Around = Annotated[str, AfterValidator(_with_program)]
"""A text with {program}."""


class UnitTestsReward(Jailed, RewardConfig):
    """A program in the completion, by the tests of the column `tests`, in a jail."""

    columns, says_right = ("tests",), True
    name: Literal["unit_tests"] = "unit_tests"
    score: Literal["outcome", "share"] = "outcome"
    """CodeRL's: -1 where it does not compile, -0.6 where it fails, -0.3 where a test does, 1; or the share that pass."""
    around: Around = "{program}"
    """What is run; {program} is the completion's, and {prompt} the prompt, where that is the program's beginning."""
    reads_cut_off: bool = False
    """Completions that max_tokens cut off are run too; else they are programs that do not compile."""

    @property
    def deadline_of_group(self) -> float:
        """Later than that of all its programs."""
        return DEADLINE

    def build(self, judged: Judged) -> UnitTests:
        """With its jail started."""
        return UnitTests(self)


class UnitTests:
    """A `Reward`; programs of a group are run at once, as many as there are processors.

    Raises:
        SetupError: there is no such jail.
    """

    name = "unit_tests"
    columns: tuple[str, ...] = ("tests",)

    def __init__(self, config: UnitTestsReward) -> None:
        self._config, self._tester = config, Tester(config.jailed())
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1)

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        return list(self._threads.map(lambda place: self._one(group, place), range(len(group.completions))))

    def close(self) -> None:
        """Ends the jail."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._tester.close()

    def _one(self, group: Group, place: int) -> Judgement:
        text = program(group.completions[place])
        if text is None or not (group.finished[place] or self._config.reads_cut_off):
            return _judged(Tested("compile", 0.0), self._config)
        whole = self._config.around.replace("{prompt}", group.prompt).replace("{program}", text)
        try:
            found = self._tester.of(whole, group.columns["tests"])
        except TimeoutError:
            return Judgement.failed("timeout")
        except ChildDied:
            return Judgement.failed("crash")
        except Refused as error:
            return Judgement.failed(str(error))
        return _judged(found, self._config, text)


def program(completion: str) -> str | None:
    """The program of a completion: what stands in its last closed block of ```, or else all of it, behind all thinking; None
    where thinking does not end, or there is nothing.
    """
    rest = after_thinking(completion)
    if rest is None or not rest.strip():
        return None
    parts = rest.split("```")
    if len(parts) < 3:
        return rest
    block = parts[-2] if len(parts) % 2 else parts[-3]
    first, line, body = block.partition("\n")
    return body if line and not first.strip(" \rpythonPYTHON3") else block


def _judged(found: Tested, config: UnitTestsReward, answer: str | None = None) -> Judgement:
    return Judgement(found.score(config.score), found.outcome == "passed", answer)
