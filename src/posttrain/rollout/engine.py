"""What a rollout engine is, and what it is asked and answers. Tokens in, tokens out: templates stand in `data/encoding`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posttrain.estimator.batch import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample. temperature 0 is greedy; top_k 0 and top_p 1 leave the distribution whole.

    `step` enters the seed of each sample, so that the same question gets other samples at another step.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError(f"max_tokens >= 1, temperature >= 0, 0 < top_p <= 1 and top_k >= 0 are needed: {self}")


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Completion:
    """One sample: the tokens, the log-prob of each under the distribution it was sampled from, and why it ended.

    Tokens and log-probs may be given as any sequences. `version` is that of the weights that sampled it.
    """

    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    finish: Literal["stop", "length"]
    version: int

    def __init__(self, tokens: ArrayLike, logprobs: ArrayLike, finish: Literal["stop", "length"], version: int = 0) -> None:
        object.__setattr__(self, "tokens", np.asarray(tokens, np.int32))
        object.__setattr__(self, "logprobs", np.asarray(logprobs, np.float32))
        object.__setattr__(self, "finish", finish)
        object.__setattr__(self, "version", version)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Completion):
            return NotImplemented
        same = self.finish == other.finish and self.version == other.version
        return same and np.array_equal(self.tokens, other.tokens) and np.array_equal(self.logprobs, other.logprobs)


class RolloutEngine(Protocol):
    """Samples completions. Requests are answered in order, `request.n` completions each, at `request.temperature` where they
    have one of their own.

    An engine with weights of its own proves in `sync` that they have become the model's.
    """

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        """Completions without their prompt and prefix; a prefix counts towards `max_tokens`.

        Raises:
            ValueError: see `check_requests`.
            EngineError: the engine died or hangs.
        """
        ...

    def sync(self, model: Any, version: int) -> None:
        """Takes over the model's weights, under a version number that every completion carries from then on.

        Raises:
            EngineError: the weights did not arrive whole.
        """
        ...

    def close(self) -> None:
        """Frees what the engine holds."""
        ...


@runtime_checkable
class Resting(Protocol):
    """An engine that holds something only to sample."""

    def rest(self) -> None:
        """Gives it back until the next `sync`; nothing is asked before."""
        ...


def rest(engine: RolloutEngine) -> None:
    """Tells an engine that no more is asked of it before the next `sync`; one that has no `rest` keeps what it has."""
    if isinstance(engine, Resting):
        engine.rest()


def temperature_of(request: Request, sampling: Sampling) -> float:
    """Its own, or that of all."""
    return sampling.temperature if request.temperature is None else request.temperature


def limit_of(request: Request, sampling: Sampling) -> int:
    """Tokens of its answer, the prefix among them: its own limit, or that of all."""
    return sampling.max_tokens if request.max_tokens is None else request.max_tokens


def room_of(request: Request, sampling: Sampling) -> int:
    """Tokens that may be sampled after its prefix."""
    return limit_of(request, sampling) - len(request.prefix)


def check_requests(requests: Sequence[Request], sampling: Sampling, context: int | None) -> None:
    """Refuses what no engine can answer, before anything is sampled. `context` is the model's maximal length.

    Raises:
        ValueError: an empty prompt, a negative temperature, a prefix that leaves no room within max_tokens, or prompt and
            answer over the context.
    """
    for number, request in enumerate(requests):
        if temperature_of(request, sampling) < 0:
            raise ValueError(f"request {number} has the temperature {request.temperature:g}; 0 is greedy, and the least")
        if not len(request.prompt) + len(request.prefix):
            raise ValueError(f"request {number} has an empty prompt")
        if room_of(request, sampling) < 1:
            raise ValueError(f"request {number}: the prefix of {len(request.prefix)} tokens leaves no room in max_tokens")
        asked = limit_of(request, sampling)
        if context is not None and len(request.prompt) + asked > context:
            raise ValueError(
                f"request {number}: a prompt of {len(request.prompt)} tokens and max_tokens {asked} are over "
                f"the model's context of {context} tokens"
            )


def sample_seed(sampling: Sampling, question: int, sample: int, turn: int = 0) -> int:
    """The seed of one sample: a hash of (seed, step, question, sample) and of the turn of a conversation from the second on,
    never a state that others advance.
    """
    key = f"{sampling.seed}/{sampling.step}/{question}/{sample}{f'/{turn}' if turn else ''}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
