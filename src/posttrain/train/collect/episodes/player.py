"""Plays episodes: all that are alive make one call of the engine a turn, and then their environments answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from posttrain.data.answers import AnswerText
from posttrain.data.encoding.glue import Glue
from posttrain.data.rows import BadRow
from posttrain.distributed.ranks import any_of
from posttrain.environments.base import FAILED, End, Environment, Step, Turn
from posttrain.environments.options import EnvironmentConfig
from posttrain.environments.sessions import Failure, Sessions
from posttrain.environments.task import Task, task_of
from posttrain.estimator.batch import Request
from posttrain.rewards.reading.calls import FORMATS, unthought
from posttrain.rollout.engine import Completion, RolloutEngine, Sampling
from posttrain.train.collect.episodes.episode import Episode, Played

EXPECTED = "the turns of a step"  # for which ranks in lockstep wait
BOUND, BOUND_BFLOAT16 = 1e-2, 1.0  # nats


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, by the id that seeds are made of: the prompt's ids, the row's columns, and how often it is played."""

    question: int
    prompt: Sequence[int]
    columns: Mapping[str, Any]
    n: int


@dataclass(slots=True)
class Live:
    """An episode as it is played, for the first time or after it failed so often. `history` are all ids until now."""

    asked: Asked
    task: Task
    sample: int
    history: list[int]
    tools: Any
    retried: int = 0
    environment: Environment | None = None
    played: list[Played] = field(default_factory=list[Played])
    end: End | None = None
    fault: str | None = None
    version: int = 0
    invalid: int = 0
    cut_off: bool = False

    @property
    def tokens(self) -> int:
        return sum(len(one.ids) for one in self.played)

    def over(self, end: End, fault: str | None = None) -> None:
        self.end, self.fault = end, fault

    def again(self) -> Live:
        """The same from its beginning."""
        return Live(self.asked, self.task, self.sample, list(self.asked.prompt), self.tools, self.retried + 1)

    def done(self) -> Episode:
        assert self.end is not None
        return Episode(tuple(self.played), self.end, self.version, self.fault, self.cut_off, self.retried)


class Player:
    """Plays with one engine and one kind of environment.

    Args:
        engine: samples turns.
        sessions: the environments at work.
        glue: what stands between turns.
        text: of turns.
        config: limits, and how calls are read.
        context: tokens that prompt and episode may have together; None: no limit is known.
        lockstep: all ranks call the engine equally often, as one over a model needs that is spread over them.
    """

    def __init__(
        self,
        engine: RolloutEngine,
        sessions: Sessions,
        glue: Glue,
        text: AnswerText,
        config: EnvironmentConfig,
        *,
        context: int | None,
        lockstep: bool = False,
    ) -> None:
        self._engine, self._sessions, self._glue, self._text, self._config = engine, sessions, glue, text, config
        self._context, self._lockstep = context, lockstep

    @property
    def config(self) -> EnvironmentConfig:
        """Of the environment."""
        return self._config

    @property
    def filler(self) -> int:
        """A token that ends answers, for a row in which nothing was written."""
        return self._glue.ends[0]

    def bound(self, sampling: Sampling | None, *, bfloat16: bool) -> float:
        """The largest difference, in nats, between log-probs as they were sampled and the trainer's, of all tokens."""
        if sampling is None or sampling.top_p < 1 or sampling.top_k:
            return math.inf
        return self._config.logp_bound or (BOUND_BFLOAT16 if bfloat16 else BOUND)

    def close(self) -> None:
        """Ends the environments."""
        self._sessions.close()

    def play(self, asked: Sequence[Asked], sampling: Sampling) -> list[list[Episode]]:
        """So many episodes of each question, in order. `sampling.max_tokens` is all that the policy may write in one.

        Raises:
            EngineError: the engine failed.
        """
        of = [(one, task_of(one.columns)) for one in asked]
        live = [Live(one, task, i, list(one.prompt), list(task.tools)) for one, task in of for i in range(one.n)]
        self._played(live, sampling)
        for _ in range(self._config.retries):
            failed = [place for place, one in enumerate(live) if one.end in FAILED]
            if not self._goes_on(failed):
                break
            again = [live[place].again() for place in failed]
            self._played(again, sampling)
            for place, one in zip(failed, again, strict=True):
                live[place] = one
        episodes = iter([one.done() for one in live])
        return [[next(episodes) for _ in range(one.n)] for one in asked]

    def _played(self, live: Sequence[Live], sampling: Sampling) -> None:
        """All of them, as many at a time as the environment has room for. Ranks in lockstep do so equally often."""
        left, most = list(live), self._config.at_once
        while self._goes_on(left):
            together, left = left[:most], left[most:] if most is not None else []
            self._together(together, sampling)

    def _together(self, live: Sequence[Live], sampling: Sampling) -> None:
        given = [(one.task.columns, one.task.seed) for one in live]
        try:
            for one, (environment, start) in zip(live, self._sessions.reset(given), strict=True):
                one.environment = environment
                if isinstance(start, Failure):
                    one.over(start.end, start.reason)
                elif not one.task.began_so(start):
                    one.over("fault", "it began otherwise than before with the same row and seed")
            self._all_turns(live, sampling)
        finally:
            self._sessions.end([one.environment for one in live if one.environment is not None])

    def _all_turns(self, live: Sequence[Live], sampling: Sampling) -> None:
        turn = 0
        while self._goes_on(playing := [one for one in live if one.end is None]):
            for one, completion in zip(playing, self._sampled(playing, sampling, turn), strict=True):
                self._take(one, completion, sampling)
            read = [(one, one.environment) for one in playing if one.environment is not None]
            steps = self._sessions.step([(environment, one.played[-1].turn) for one, environment in read])
            for (one, _), step in zip(read, steps, strict=True):
                self._answered(one, step, sampling)
            turn += 1

    def _goes_on(self, playing: Sequence[Any]) -> bool:
        return any_of(bool(playing), EXPECTED) if self._lockstep else bool(playing)

    def _sampled(self, playing: Sequence[Live], sampling: Sampling, turn: int) -> list[Completion]:
        """A turn of each. In the first one the samples of a question share its request, as without an environment."""
        requests = list[Request]()
        for one in playing:
            room = self._room(one, sampling)
            last = requests[-1] if requests else None
            follows = last is not None and not turn and last.question == one.asked.question
            if last is not None and follows and last.sample + last.n == one.sample:
                requests[-1] = replace(last, n=last.n + 1)
                continue
            requests.append(Request(one.history, question=one.asked.question, max_tokens=room, turn=turn, sample=one.sample))
        return [completion for group in self._engine.generate(requests, sampling) for completion in group]

    def _room(self, one: Live, sampling: Sampling) -> int:
        """Tokens of its next turn: what is left of a turn, of the episode and of the context, whichever is least."""
        limits = [self._config.turn_tokens or sampling.max_tokens, sampling.max_tokens - one.tokens]
        return min(limits if self._context is None else [*limits, self._context - len(one.history)])

    def _take(self, one: Live, completion: Completion, sampling: Sampling) -> None:
        own = self._config.turn_tokens
        one.cut_off = completion.finish == "length" and (own is None or self._room(one, sampling) < own)
        read = self._text.of(one.history, {} if one.played else one.asked.columns, completion.tokens)
        one.version = completion.version
        one.history += completion.tokens.tolist()
        one.played.append(Played(completion.tokens, completion.logprobs, self._read(read, completion.finish), Step()))

    def _read(self, text: str, finish: Any) -> Turn:
        reader = FORMATS.get(self._config.format)
        if reader is None:
            return Turn(text, finish=finish)
        thinking, said = unthought(text)
        return Turn(said, thinking, () if finish == "length" else tuple(reader(said)), finish)

    def _answered(self, one: Live, step: Step | Failure, sampling: Sampling) -> None:
        if isinstance(step, Failure):
            one.over(step.end, step.reason)
            return
        last = one.played[-1] = replace(one.played[-1], step=step)
        calls = last.turn.calls
        broken = any(call.fault for call in calls) or (one.tools and not calls)
        one.invalid = one.invalid + 1 if broken else 0
        if step.done:
            one.over("done")
        elif len(one.played) >= self._config.max_turns:
            one.over("max_turns")
        elif one.invalid >= self._config.max_invalid:
            one.over("invalid")
        elif one.tokens >= sampling.max_tokens:
            one.over("max_tokens")
        else:
            self._goes_on_with(one, last, step)

    def _goes_on_with(self, one: Live, last: Played, step: Step) -> None:
        named = [(call.name, call.arguments) for call in last.turn.calls if call.fault is None]
        said = [{key: value for key, value in message.items() if key != "error"} for message in step.messages]
        try:
            glued = self._glue.of(int(last.ids[-1]) if len(last.ids) else None, said, named, one.tools)
        except BadRow as error:
            one.over("fault", f"what the environment said cannot be written: {error}")
            return
        if self._context is not None and len(one.history) + len(glued.ids) >= self._context:
            one.over("context")
            return
        one.history += glued.ids
        one.played[-1] = replace(last, glue=np.array(glued.ids, np.int32), cut=glued.cut)
