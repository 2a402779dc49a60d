"""What running vLLMs are asked and answer, whoever brings them their weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

from posttrain.errors import EngineError
from posttrain.estimator.batch import Request
from posttrain.rollout.engine import Completion, Sampling, check_requests, room_of, sample_seed, temperature_of
from posttrain.rollout.probe import Probe
from posttrain.rollout.vllm.backend import Answer, Ask, Backend, sampling_options
from posttrain.settings.rollout import VLLM_TEMPERATURE


class VLLMClient:
    """The sampling half of a `RolloutEngine` over vLLM. Whoever brings the weights sets what is declared here.

    Args:
        ends: the ids that end an answer.
    """

    version: int = -1
    """Of the weights that have been proved to be there; below 0: of none."""
    _backend: Backend | None = None
    _probe: Probe

    def __init__(self, ends: Sequence[int]) -> None:
        self._ends = ends

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        """See `RolloutEngine.generate`.

        Raises:
            EngineError: also before the first `sync`, after one that failed, and after a `rest` that took the weights.
        """
        if self.version < 0:
            raise EngineError("The engine has no weights of the trainer: call sync(model, version) first.")
        return self._generate(requests, sampling)

    def _running(self) -> Backend:
        if self._backend is None:
            raise EngineError("The engine was closed.")
        return self._backend

    def _generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        backend = self._running()
        check_requests(requests, sampling, backend.context)
        hottest = max([sampling.temperature, *(temperature_of(request, sampling) for request in requests)])
        if hottest > VLLM_TEMPERATURE:
            raise ValueError(f"vLLM takes no temperature over {VLLM_TEMPERATURE:g}, and {hottest:g} was asked for")
        asks = [
            Ask(
                [*request.prompt, *request.prefix],
                room_of(request, sampling),
                sample_seed(sampling, request.question, sample, request.turn) >> 1,  # vLLM's are of 63 bits
                request.temperature,
            )
            for request in requests
            for sample in range(request.sample, request.sample + request.n)
        ]
        if not asks:
            return [[] for _ in requests]
        answers = iter(backend.submit(asks, sampling_options(sampling, self._ends)))
        return [[self._completion(next(answers)) for _ in range(request.n)] for request in requests]

    def _probed(self, tokens: int | None = None, place: int = 0) -> dict[str, Answer]:
        """What each engine answers to the probe, alone: its bits depend on the weights, and on no neighbours."""
        sampling = self._probe.sampling
        ask = Ask(self._probe.prompt_at(place), tokens or sampling.max_tokens, sample_seed(sampling, place, 0) >> 1)
        return self._running().each(ask, {**sampling_options(sampling, []), "ignore_eos": True})

    def _completion(self, answer: Answer) -> Completion:
        whole = len(answer.tokens) == len(answer.logprobs) > 0
        if not whole or not all(map(math.isfinite, answer.logprobs)):
            raise EngineError(
                f"vLLM gave {len(answer.tokens)} tokens and {len(answer.logprobs)} log-probs, or some that are not finite."
            )
        return Completion(answer.tokens, answer.logprobs, answer.finish, self.version)


def unmoved(
    answers: dict[str, Answer], known: tuple[int, dict[str, Answer]] | None, fingerprint: int, version: int
) -> dict[str, EngineError]:
    """The fault of each engine that answers as before other weights came."""
    if known is None or known[0] == fingerprint:
        return {}
    return {
        name: EngineError(
            f"After the sync to version {version} the engine {name} answers the probe as before, to the last bit, though the "
            "trainer's weights have changed: it does not sample from the trainer's weights. The last checkpoint is whole."
        )
        for name, answer in answers.items()
        if known[1].get(name) == answer
    }
