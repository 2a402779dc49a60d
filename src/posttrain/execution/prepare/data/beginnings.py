"""Rows as their environment begins: what it says first is their prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from posttrain.data.sources import Record
from posttrain.environments.base import Start
from posttrain.environments.options import EnvironmentConfig
from posttrain.environments.sessions import Failure, Sessions
from posttrain.environments.task import begun, seed_of
from posttrain.rewards.reading.calls import described
from posttrain.telling import tell

TOGETHER = 256  # records
IN_WORDS = (
    "environment: the chat template has no place for tools: they are described in words before the first message, and their "
    "results are said by the user."
)


class Beginnings:
    """Begins an episode of each record, to see how it does.

    Args:
        config: the environment.
        seed: of the run.
        in_words: tools are described in the first message, for no chat template does it.
    """

    def __init__(self, config: EnvironmentConfig, seed: int, *, in_words: bool) -> None:
        self._config, self._seed, self._in_words = config, seed, in_words

    def of(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records with what the policy sees first as their prompt; one that cannot begin has a fault.

        Raises:
            SetupError: the environment does not start.
        """
        left = iter(records)
        with Sessions.of(self._config) as sessions:
            while some := list(islice(left, self._config.at_once or TOGETHER)):
                yield from self._begun(sessions, some)

    def _begun(self, sessions: Sessions, records: Sequence[Record]) -> Iterator[Record]:
        able = [one for one in records if one.fault is None]
        tasks = [(one.columns, seed_of(one.columns, self._seed)) for one in able]
        started = self._started(sessions, tasks)
        for _ in range(self._config.retries):
            failed = [place for place, start in enumerate(started) if isinstance(start, Failure)]
            again = self._started(sessions, [tasks[place] for place in failed])
            for place, start in zip(failed, again, strict=True):
                started[place] = start
        starts = iter(zip(tasks, started, strict=True))
        for one in records:
            if one.fault is not None:
                yield one
                continue
            (columns, seed), start = next(starts)
            if isinstance(start, Failure):
                yield replace(one, fault=f"the environment does not begin: {start.reason}")
            else:
                tools_as = described(self._config.format, start.tools) if self._in_words and start.tools else ""
                if tools_as:
                    tell("tools-in-words", IN_WORDS)
                yield replace(one, columns=begun(columns, seed, start, tools_as))

    def _started(self, sessions: Sessions, tasks: Sequence[tuple[Mapping[str, Any], int]]) -> list[Start | Failure]:
        """How each begins. None is played."""
        started = sessions.reset(tasks)
        sessions.end([environment for environment, _ in started if environment is not None])
        return [start for _, start in started]
