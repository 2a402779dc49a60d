"""What every rollout engine must do: one suite, run over a scripted engine, transformers and vLLM.

A module that has a fixture `subject` imports the class `EngineContract` under a name that begins with Test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from posttrain import Completion, Request, RolloutEngine, Sampling
from posttrain.rollout.engine import check_requests, rest, sample_seed, temperature_of

PROMPTS = ([60, 61], [62, 63, 64, 70, 71], [65] * 40, [66, 80, 81])
TOLERANCE = 1e-4  # nats, in float32


@dataclass
class Subject:
    """An engine under test, with an independent view of the distribution that it samples from."""

    engine: RolloutEngine
    log_softmax: Callable[[Sequence[int], Sequence[int]], torch.Tensor]
    """(context, answer) → raw logits [len(answer), V] of each of the answer's tokens."""
    change: Callable[[], Any]
    """Other weights, not yet synced."""
    sync: Callable[[int], None]
    end: int
    decode: Callable[[Sequence[int]], str]
    context: int


def of_model(engine: RolloutEngine, model: Any, tokenizer: Any) -> Subject:
    """The subject of an engine that samples from a model."""

    def logits(context: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
        with torch.no_grad():
            return model(torch.tensor([[*context, *answer]])).logits[0, len(context) - 1 : -1].float()

    def change() -> None:
        rng = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=rng))

    return Subject(
        engine, logits, change, lambda version: engine.sync(model, version), tokenizer.eos_token_id, tokenizer.decode,
        model.config.max_position_embeddings,
    )  # fmt: skip


class Scripted:
    """A real sampler over a table: the logits of a token depend on the one before it."""

    def __init__(self, table: torch.Tensor, end: int, decode: Callable[[Sequence[int]], str], context: int) -> None:
        self.table, self._end, self._decode, self._context = table, end, decode, context
        self._synced, self._version = table.clone(), 0

    def sync(self, model: Any, version: int) -> None:
        self._synced, self._version = model.clone(), version

    def rest(self) -> None:
        self._synced = torch.full_like(self._synced, torch.nan)

    def close(self) -> None:
        pass

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        check_requests(requests, sampling, self._context)
        return [[self._one(request, sampling, i) for i in range(request.n)] for request in requests]

    def _one(self, request: Request, sampling: Sampling, sample: int) -> Completion:
        rng = np.random.default_rng(sample_seed(sampling, request.question, sample))
        tokens, logprobs, last = list[int](), list[float](), [*request.prompt, *request.prefix][-1]
        heat = temperature_of(request, sampling)
        while len(tokens) < sampling.max_tokens - len(request.prefix):
            logp = (self._synced[last] / (heat or 1.0)).log_softmax(-1)
            if sampling.top_k:
                logp = logp.masked_fill(logp < logp.topk(sampling.top_k).values[-1], -torch.inf).log_softmax(-1)
            p = logp.double().exp().numpy()
            last = int(logp.argmax()) if not heat else int(rng.choice(len(p), p=p / p.sum()))
            tokens.append(last)
            logprobs.append(float(logp[last]))
            if last == self._end or any(stop in self._decode(tokens) for stop in sampling.stop):
                return Completion(tuple(tokens), tuple(logprobs), "stop", self._version)
        return Completion(tuple(tokens), tuple(logprobs), "length", self._version)


def of_table() -> Subject:
    """The subject of the scripted engine."""
    table = 2 * torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    engine = Scripted(table, 1, lambda tokens: "".join(map(chr, tokens)), 200)
    return Subject(
        engine,
        lambda context, answer: engine.table[[context[-1], *answer[:-1]]],
        lambda: engine.table.add_(torch.randn(256, 256, generator=torch.Generator().manual_seed(1))),
        lambda version: engine.sync(engine.table, version),
        1, lambda tokens: "".join(map(chr, tokens)), 200,
    )  # fmt: skip


def ask(*prompts: Sequence[int], n: int = 1, first: int = 0) -> list[Request]:
    return [Request(prompt, n=n, question=i) for i, prompt in enumerate(prompts, first)]


def flat(groups: list[list[Completion]]) -> list[Completion]:
    return [one for group in groups for one in group]


def tokens(groups: list[list[Completion]]) -> list[tuple[int, ...]]:
    return [tuple(one.tokens.tolist()) for one in flat(groups)]


class EngineContract:
    def test_greedy_takes_the_most_probable_token(self, subject: Subject) -> None:
        groups = subject.engine.generate(ask(*PROMPTS, n=2), Sampling(max_tokens=12, temperature=0.0))
        for prompt, group in zip(PROMPTS, groups, strict=True):
            assert group[0] == group[1]
            logits = subject.log_softmax(prompt, group[0].tokens.tolist())
            best = logits.max(-1).values
            taken = logits[range(len(group[0].tokens)), group[0].tokens]
            assert (best - taken).max() < TOLERANCE
            reported = torch.tensor(group[0].logprobs)
            assert (reported - (taken - logits.logsumexp(-1))).abs().max() < TOLERANCE

    def test_a_request_may_have_a_temperature_of_its_own(self, subject: Subject) -> None:
        sampling = Sampling(max_tokens=12, temperature=1.3, seed=2)
        own = [Request(prompt, question=i, temperature=0.0) for i, prompt in enumerate(PROMPTS)]
        together = [request for pair in zip(ask(*PROMPTS, n=3), own, strict=True) for request in pair]
        answers = subject.engine.generate(together, sampling)
        greedy = subject.engine.generate(ask(*PROMPTS), dataclasses.replace(sampling, temperature=0.0))
        assert tokens(answers[1::2]) == tokens(greedy)
        assert tokens(answers[::2]) == tokens(subject.engine.generate(ask(*PROMPTS, n=3), sampling))
        with pytest.raises(ValueError, match="request 0 has the temperature -1"):
            subject.engine.generate([Request(PROMPTS[0], temperature=-1.0)], sampling)

    @pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
    def test_log_probs_are_of_the_sampling_distribution(self, subject: Subject, temperature: float) -> None:
        sampling = Sampling(max_tokens=16, temperature=temperature, seed=4)
        groups = subject.engine.generate(ask(*PROMPTS, n=8), sampling)
        seen = 0
        for prompt, group in zip(PROMPTS, groups, strict=True):
            for one in group:
                logp = (subject.log_softmax(prompt, one.tokens.tolist()) / temperature).log_softmax(-1)
                own = logp[range(len(one.tokens)), one.tokens]
                assert (own - torch.tensor(one.logprobs)).abs().max() < TOLERANCE
                seen += len(one.tokens)
        assert seen > 100

    def test_the_same_seed_step_question_and_sample_give_the_same_completion(self, subject: Subject) -> None:
        sampling = Sampling(max_tokens=12, temperature=1.3, seed=2)
        whole = subject.engine.generate(ask(*PROMPTS, n=3), sampling)
        assert tokens(subject.engine.generate(ask(*PROMPTS, n=3), sampling)) == tokens(whole)
        alone = subject.engine.generate(ask(PROMPTS[2], n=2, first=2), sampling)
        assert tokens(alone) == tokens([whole[2][:2]])

    def test_seed_step_question_and_sample_each_make_another_one(self, subject: Subject) -> None:
        def drawn(**options: Any) -> list[tuple[int, ...]]:
            sampling = Sampling(max_tokens=12, temperature=1.3, **options)
            return tokens(subject.engine.generate(ask(PROMPTS[0], PROMPTS[0], n=4), sampling))

        samples = [*drawn(), *drawn(seed=1), *drawn(step=1)]
        assert len(set(samples)) == len(samples)

    def test_an_end_is_kept_and_ends(self, subject: Subject) -> None:
        sampling = Sampling(max_tokens=24, temperature=1.9)
        sampled = flat(subject.engine.generate(ask(*PROMPTS, n=100), sampling))
        assert {one.finish for one in sampled} == {"stop", "length"}
        for one in sampled:
            assert subject.end not in one.tokens[:-1]
            assert (one.finish == "stop") == (one.tokens[-1] == subject.end)
            assert len(one.tokens) == len(one.logprobs) and (one.finish == "stop" or len(one.tokens) == 24)

    def test_a_stop_string_is_kept_and_ends(self, subject: Subject) -> None:
        free = Sampling(max_tokens=12, temperature=1.0, seed=3)
        whole = flat(subject.engine.generate(ask(*PROMPTS, n=10), free))
        letters = "".join(subject.decode(one.tokens.tolist()) for one in whole)
        stop = max((c for c in letters if c.isascii() and c.isprintable() and c != " "), key=letters.count)
        stopping = Sampling(max_tokens=12, temperature=1.0, seed=3, stop=(stop,))
        ended = 0
        for one, other in zip(whole, flat(subject.engine.generate(ask(*PROMPTS, n=10), stopping)), strict=True):
            ids = one.tokens.tolist()
            ends = [i for i in range(len(ids)) if stop in subject.decode(ids[: i + 1])]
            assert other.tokens.tolist() == (ids[: ends[0] + 1] if ends else ids)
            assert other.finish == ("stop" if ends else one.finish)
            ended += bool(ends)
        assert ended

    def test_a_prefix_is_context_and_counts_towards_the_length(self, subject: Subject) -> None:
        greedy = Sampling(max_tokens=8, temperature=0.0)
        [[whole]] = subject.engine.generate(ask(PROMPTS[1]), greedy)
        prefix = whole.tokens[:3].tolist()
        [[rest]] = subject.engine.generate([Request(PROMPTS[1], prefix=prefix)], greedy)
        assert prefix + rest.tokens.tolist() == whole.tokens.tolist() and rest.finish == whole.finish

    def test_top_k_bounds_the_support(self, subject: Subject) -> None:
        sampled = flat(subject.engine.generate(ask(PROMPTS[0], n=40), Sampling(max_tokens=1, top_k=3)))
        logits = subject.log_softmax(PROMPTS[0], [0])[0]
        assert {one.tokens[0] for one in sampled} <= set(logits.topk(3).indices.tolist())
        kept = logits.topk(3).values.log_softmax(-1)
        for one in sampled:
            assert (kept - one.logprobs[0]).abs().min() < TOLERANCE

    @pytest.mark.parametrize(
        ("request_", "reason"),
        [
            (Request([]), "request 1 has an empty prompt"),
            (Request([60], prefix=[61] * 9), "leaves no room in max_tokens"),
            (Request([60] * 5000), "over the model's context"),
        ],
    )
    def test_requests_that_cannot_be_answered(self, subject: Subject, request_: Request, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            subject.engine.generate([Request([60]), request_], Sampling(max_tokens=9))
        longest = Request([60] * (subject.context - 2))
        assert len(flat(subject.engine.generate([longest], Sampling(max_tokens=2)))[0].tokens) <= 2

    def test_requests_are_answered_in_order_and_none_is_an_answer_to_none(self, subject: Subject) -> None:
        requests = [Request(PROMPTS[i % 4], n=i % 3, question=i) for i in range(9)]
        answers = subject.engine.generate(requests, Sampling(max_tokens=3))
        assert [len(group) for group in answers] == [request.n for request in requests]
        assert subject.engine.generate([], Sampling(max_tokens=3)) == []

    def test_a_sync_brings_new_weights_under_their_version(self, subject: Subject) -> None:
        sampling = Sampling(max_tokens=10, temperature=1.0, seed=9)
        before = subject.engine.generate(ask(PROMPTS[2], n=4), sampling)
        subject.change()
        subject.sync(17)
        after = subject.engine.generate(ask(PROMPTS[2], n=4), sampling)
        assert {one.version for one in flat(after)} == {17}
        assert tokens(after) != tokens(before)
        for one in flat(after):
            logp = subject.log_softmax(PROMPTS[2], one.tokens.tolist()).log_softmax(-1)[range(len(one.tokens)), one.tokens]
            assert (logp - torch.tensor(one.logprobs)).abs().max() < TOLERANCE

    def test_after_a_rest_a_sync_brings_back_what_it_samples_with(self, subject: Subject) -> None:
        sampling = Sampling(max_tokens=10, temperature=1.0, seed=9)
        subject.sync(18)
        before = subject.engine.generate(ask(PROMPTS[2], n=4), sampling)
        rest(subject.engine)
        rest(subject.engine)
        subject.sync(19)
        after = subject.engine.generate(ask(PROMPTS[2], n=4), sampling)
        assert tokens(after) == tokens(before) and {one.version for one in flat(after)} == {19}
