"""transformers' continuous batching over the model in memory: paged keys, a place filled again as soon as a row ends.

A batch has one stream of random numbers, so that an answer depends on its neighbours: a collection is drawn again as it was
only whole. Log-probs are those of the sampling distribution, which the probe proves at the first sync.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from posttrain.errors import EngineError, SetupError
from posttrain.estimator.batch import Request
from posttrain.model.load import context_of
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.model.scoring import without_autocast
from posttrain.rollout.engine import Completion, Sampling, check_requests, limit_of, room_of, sample_seed, temperature_of
from posttrain.rollout.probe import Probe

OLDEST = Version("5.19")  # of transformers
PAGE = 256  # tokens of a block of the cache
CPU_TOKENS = 2**16  # in the cache at a time, on a CPU; a GPU's free memory bounds them
ANSWERED = 1.0  # seconds after which it is asked whether the sampling thread lives


class ContinuousEngine:
    """A `RolloutEngine` over the model in memory, by `generate_batch`'s manager.

    Args:
        model: one that transformers can batch continuously; whole on this device.
        tokenizer: for stop strings and the end-of-sequence token.

    Raises:
        SetupError: the model cannot be batched so.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer, self._version = model, tokenizer, 0
        self._ends = eos_ids(model, tokenizer)
        self._probe: Probe | None = Probe(len(tokenizer), context_of(model) or 2**31, tokenizer.pad_token_id or 0)
        if Version(transformers.__version__) < OLDEST:
            raise SetupError(
                f"Continuous batching of transformers {transformers.__version__} is older than what was tried: "
                f"take {OLDEST}, or rollout.hf: {{batching: loop}}."
            )
        if not hasattr(_base(model), "init_continuous_batching"):
            raise SetupError(f"{type(model).__name__} has no continuous batching. Take rollout.hf: {{batching: loop}}.")

    def sync(self, model: Any, version: int) -> None:
        """The engine samples from the model itself: only the version changes. The first time its log-probs are proved.

        Raises:
            EngineError: they are not the model's.
        """
        self._model, self._version = model, version
        if self._probe is not None:
            [[answer]] = self._generate([Request(self._probe.prompt)], self._probe.sampling, ends=[])
            _, faults = self._probe.check(model, {"hf (batching: continuous)": answer}, version, None)
            for fault in faults.values():
                raise fault
            self._probe = None

    def close(self) -> None:
        """Nothing is held beyond the model."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        """See `RolloutEngine.generate`."""
        check_requests(requests, sampling, context_of(self._model))
        return self._generate(requests, sampling, self._ends)

    def _generate(self, requests: Sequence[Request], sampling: Sampling, ends: Sequence[int]) -> list[list[Completion]]:
        answers: list[list[Completion]] = [[] for _ in requests]
        kinds = [(request.n, temperature_of(request, sampling)) for request in requests]
        for kind in sorted({kind for kind in kinds if kind[0]}):
            numbers = [number for number, one in enumerate(kinds) if one == kind]
            alike = dataclasses.replace(sampling, temperature=kind[1])
            found = self._batch([requests[number] for number in numbers], kind[0], alike, ends)
            for number, group in zip(numbers, found, strict=True):
                answers[number] = group
        return answers

    def _batch(self, requests: Sequence[Request], n: int, sampling: Sampling, ends: Sequence[int]) -> list[list[Completion]]:
        model = _base(self._model)
        if (greedy := sampling.temperature == 0) and n > 1:
            return [group * n for group in self._batch(requests, 1, sampling, ends)]  # all alike
        options = {} if greedy else {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        how = GenerationConfig(
            do_sample=not greedy,
            num_return_sequences=n,
            eos_token_id=list(ends) or -1,
            pad_token_id=self._tokenizer.pad_token_id or 0,
            max_new_tokens=sampling.max_tokens,
            **options,
        )
        on_cpu = model.device.type == "cpu"
        needed = sum(n * (1 + (len(request.prompt) + limit_of(request, sampling)) // PAGE) for request in requests)
        batching = ContinuousBatchingConfig(
            page_size=PAGE,
            return_logprobs=True,
            seed=sample_seed(sampling, requests[0].question, n, requests[0].turn) % 2**32,
            num_blocks=min(needed, CPU_TOKENS // PAGE) if on_cpu else None,
            drop_unsupported_processors=False,
        )
        with _as_for_sampling(self._model, model), torch.no_grad():
            manager = model.init_continuous_batching(generation_config=how, continuous_batching_config=batching)
            try:
                names = [
                    manager.add_request(
                        [*request.prompt, *request.prefix],
                        max_new_tokens=room_of(request, sampling),
                        eos_token_id=how.eos_token_id,
                    )
                    for request in requests
                ]
                manager.start()
                outputs = _outputs(manager, n * len(requests))
            finally:
                manager.stop(block=True, hard_stop=True)
                manager.destroy()
        groups = [[name, *(f"{name}__child#{i}" for i in range(n - 1))] for name in names]
        return [[self._completion(outputs[name], sampling, ends) for name in group] for group in groups]

    def _completion(self, output: Any, sampling: Sampling, ends: Sequence[int]) -> Completion:
        tokens, logprobs = list(output.generated_tokens), list(output.logprobs)
        if len(tokens) != len(logprobs) or not tokens:
            raise EngineError(f"Continuous batching gave {len(tokens)} tokens and {len(logprobs)} log-probs.")
        stopped = tokens[-1] in ends
        for length in range(1, len(tokens) + 1) if sampling.stop else ():
            text = self._tokenizer.decode(tokens[:length])
            if any(stop in text for stop in sampling.stop):
                return Completion(tokens[:length], logprobs[:length], "stop", self._version)
        return Completion(tokens, logprobs, "stop" if stopped else "length", self._version)


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "peft_config") else model


@contextlib.contextmanager
def _as_for_sampling(model: Any, base: Any) -> Iterator[None]:
    """In eval mode, with an attention that transformers can page, in the dtype of the weights, which its cache has; random
    numbers drawn here leave no trace.
    """
    training, attention = model.training, base.config._attn_implementation
    device = base.device
    own_rng = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with own_rng, torch.autocast(device.type, enabled=False), without_autocast(base):
        model.eval()
        if "|" not in attention and not attention.startswith("flash"):
            base.set_attn_implementation("eager" if attention.startswith("eager") else "sdpa")
        try:
            yield
        finally:
            base.set_attn_implementation(attention)
            model.train(training)


def _outputs(manager: Any, number: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while len(found) < number:
        output = manager.get_result(timeout=ANSWERED)
        if output is not None and output.error is not None:
            raise EngineError(f"Continuous batching failed: {output.error}. Take rollout.hf: {{batching: loop}}.")
        if output is not None and output.is_finished():
            found[output.request_id] = output
        elif output is None and not manager.is_running():
            raise EngineError(f"Continuous batching ended with {len(found)} of {number} completions.")
    return found
