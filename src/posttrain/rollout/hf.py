"""The embedded engine: transformers' own model, one prefill for each prompt, finished rows dropped as they finish.

The n samples of a prompt share its prefill; each sample draws from its own stream of uniform numbers, so that neither the
batch's make-up nor its neighbours change it. Log-probs are those of the sampling distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from posttrain.distributed.ranks import any_of
from posttrain.errors import SetupError
from posttrain.estimator.batch import Request
from posttrain.model.load import context_of
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.rollout.engine import Completion, Sampling, check_requests, limit_of, room_of, sample_seed, temperature_of

ROWS = 256  # sampled at a time; past it a CPU gains nothing
TOKENS = 2**16  # of prompts and answers at a time: the cache of an 8 B model in float32 is then 17 GB
NEXT = "the next token"  # for which ranks in lockstep wait


@dataclass(slots=True)
class _Sample:
    request: int
    uniforms: np.ndarray
    room: int
    temperature: float
    tokens: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    finished: bool = False


class HFEngine:
    """A `RolloutEngine` over the model in memory.

    Args:
        model: with `generate`'s cache protocol; it is sampled in eval mode and put back in the mode it was in.
        tokenizer: for stop strings and the end-of-sequence token.
        lockstep: all ranks make every forward pass together, as a model needs that is spread over them. Each must call
            `generate`; one that has nothing left to sample runs along until all are done.

    Raises:
        SetupError: the model's cache cannot drop rows, as those of state-space models.
    """

    def __init__(self, model: Any, tokenizer: Any, *, lockstep: bool = False) -> None:
        self._model, self._tokenizer, self._version, self._lockstep = model, tokenizer, 0, lockstep
        self._ends = eos_ids(model, tokenizer)
        if not all(hasattr(layer, "batch_select_indices") for layer in DynamicCache(config=model.config).layers):
            raise SetupError(f"{type(model).__name__} keeps a state that engine: hf cannot sample with. Take engine: vllm.")

    def sync(self, model: Any, version: int) -> None:
        """The engine samples from the model itself: only the version changes."""
        self._model, self._version = model, version

    def close(self) -> None:
        """Nothing is held beyond the model."""

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        """See `RolloutEngine.generate`."""
        check_requests(requests, sampling, context_of(self._model))
        samples = [_samples(number, request, sampling) for number, request in enumerate(requests)]
        training = self._model.training
        self._model.eval()
        try:
            for part in _parts(requests, sampling):
                self._sample([(requests[i], samples[i]) for i in part], sampling)
            self._run_along()
        finally:
            self._model.train(training)
        return [[self._completion(sample) for sample in group] for group in samples]

    def _completion(self, sample: _Sample) -> Completion:
        finish = "stop" if sample.finished else "length"
        return Completion(sample.tokens, sample.logprobs, finish, self._version)

    def _sample(self, part: list[tuple[Request, list[_Sample]]], sampling: Sampling) -> None:
        device = self._device
        contexts = [[*request.prompt, *request.prefix] for request, _ in part]
        ids, mask = _left_padded(contexts, device)
        cache = DynamicCache(config=self._model.config)
        logits = self._next(ids, mask, cache, (mask.cumsum(-1) - 1).clamp(min=0))
        alive = [sample for _, group in part for sample in group]
        rows = torch.tensor([i for i, (_, group) in enumerate(part) for _ in group], device=device)
        cache.batch_select_indices(rows)
        logits, mask = logits[rows], mask[rows]
        while alive:
            heat = torch.tensor([s.temperature for s in alive], device=logits.device, dtype=logits.dtype)
            log_p = _distribution(logits, sampling, heat)
            uniforms = torch.tensor([s.uniforms[len(s.tokens)] for s in alive], device=log_p.device)
            tokens = torch.where(heat == 0, log_p.argmax(-1), _inverse_cdf(log_p, uniforms))
            logprobs = log_p.gather(1, tokens[:, None])[:, 0]
            for sample, token, logprob in zip(alive, tokens.tolist(), logprobs.tolist(), strict=True):
                sample.tokens.append(token)
                sample.logprobs.append(logprob)
                sample.finished = token in self._ends or self._stops(sample, sampling)
            kept = [i for i, s in enumerate(alive) if not s.finished and len(s.tokens) < s.room]
            if not kept:
                return
            if len(kept) < len(alive):
                alive = [alive[i] for i in kept]
                index = torch.tensor(kept, device=device)
                cache.batch_select_indices(index)
                tokens, mask = tokens[index], mask[index]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            logits = self._next(tokens[:, None], mask, cache, mask.sum(-1, keepdim=True) - 1)

    @property
    def _device(self) -> torch.device:
        return self._model.get_input_embeddings().weight.device

    def _next(self, ids: Tensor, mask: Tensor, cache: Any, positions: Tensor) -> Float[Tensor, "rows vocab"]:
        if self._lockstep:
            any_of(True, NEXT)
        return self._forward(ids, mask, cache, positions)

    def _run_along(self) -> None:
        """Forward passes of one token, for as long as another rank samples."""
        while self._lockstep and any_of(False, NEXT):
            one = torch.ones(1, 1, dtype=torch.long, device=self._device)
            self._forward(one, one, None, one - 1)

    def _forward(self, ids: Tensor, mask: Tensor, cache: Any, positions: Tensor) -> Float[Tensor, "rows vocab"]:
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()

    def _stops(self, sample: _Sample, sampling: Sampling) -> bool:
        if not sampling.stop:
            return False
        text = self._tokenizer.decode(sample.tokens)
        return any(stop in text for stop in sampling.stop)


def _samples(number: int, request: Request, sampling: Sampling) -> list[_Sample]:
    room, heat = room_of(request, sampling), temperature_of(request, sampling)
    numbers = range(request.sample, request.sample + request.n)
    seeds = (sample_seed(sampling, request.question, sample, request.turn) for sample in numbers)
    return [_Sample(number, np.random.Generator(np.random.Philox(key=seed)).random(room), room, heat) for seed in seeds]


def _parts(requests: Sequence[Request], sampling: Sampling) -> list[list[int]]:
    """Requests of like length together, as many as the bounds on rows and tokens allow."""

    def length(i: int) -> int:
        return len(requests[i].prompt) + len(requests[i].prefix)

    parts: list[list[int]] = []
    rows = room = 0
    for i in sorted(range(len(requests)), key=length):
        rows, own = rows + requests[i].n, limit_of(requests[i], sampling)
        room = max(room, own)
        if not parts or rows > ROWS or rows * (length(i) + room) > TOKENS:
            parts.append([])
            rows, room = requests[i].n, own
        parts[-1].append(i)
    return parts


def _left_padded(contexts: Sequence[Sequence[int]], device: torch.device) -> tuple[Int[Tensor, "B S"], Int[Tensor, "B S"]]:
    width = max(map(len, contexts))
    ids = torch.tensor([[0] * (width - len(c)) + list(c) for c in contexts], device=device)
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=device)
    return ids, mask


def _distribution(logits: Float[Tensor, "B V"], sampling: Sampling, heat: Float[Tensor, " B"]) -> Float[Tensor, "B V"]:
    """log of the sampling distribution: each row's temperature, then top_k, then top_p, renormalised."""
    log_p = (logits / heat.where(heat > 0, 1.0)[:, None]).log_softmax(-1)
    if sampling.top_k:
        threshold = log_p.topk(min(sampling.top_k, log_p.shape[-1]), -1).values[:, -1:]
        log_p = log_p.masked_fill(log_p < threshold, -torch.inf).log_softmax(-1)
    if sampling.top_p < 1:
        ordered, order = log_p.sort(-1, descending=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()
        dropped = torch.zeros_like(log_p, dtype=torch.bool).scatter(1, order, before >= sampling.top_p)
        log_p = log_p.masked_fill(dropped, -torch.inf).log_softmax(-1)
    return log_p


def _inverse_cdf(log_p: Float[Tensor, "B V"], uniforms: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    cumulative = log_p.double().exp().cumsum(-1)
    drawn = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, drawn, right=True)[:, 0].clamp(max=log_p.shape[-1] - 1)
