"""The embedded engine against transformers' own generate and against full forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import MambaConfig, MambaForCausalLM

from posttrain.data.rows import Example, Row
from posttrain.errors import SetupError
from posttrain.estimator.batch import Request
from posttrain.model.layout.padded import model_inputs
from posttrain.model.load import load
from posttrain.model.scoring import Scorer
from posttrain.rollout.engine import Completion, Sampling, sample_seed
from posttrain.rollout.hf import HFEngine
from posttrain.settings.model import ModelConfig
from posttrain.train.collect.demonstrations import collect_demonstrations

PROMPTS = ([7], [8, 9, 10], [7, 9, 11, 13, 15, 17, 19, 8], [12, 12])
END = 1


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def loaded(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    size = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.25}
    config = {"from_scratch": {"architecture": request.param, **size}, "tokenizer": {"characters": "abcdefghijklmnopqrst"}}
    model, tokenizer = load(ModelConfig.model_validate(config), seed=1)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def engine(loaded: tuple[Any, Any]) -> HFEngine:
    return HFEngine(*loaded)


def test_a_model_whose_state_cannot_be_cut_is_refused(loaded: Any) -> None:
    config = MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(SetupError, match="MambaForCausalLM keeps a state"):
        HFEngine(MambaForCausalLM(config), loaded[1])


def ask(*prompts: Sequence[int], n: int = 1) -> list[Request]:
    return [Request(prompt, n=n, question=i) for i, prompt in enumerate(prompts)]


def next_logits(model: Any, context: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([list(context)])).logits[0, -1].double()


def flat(groups: list[list[Completion]]) -> list[Completion]:
    return [completion for group in groups for completion in group]


def test_greedy_is_what_transformers_generates(loaded: Any, engine: HFEngine) -> None:
    model, tokenizer = loaded
    ours = engine.generate(ask(*PROMPTS, n=2), Sampling(max_tokens=12, temperature=0.0))
    for prompt, group in zip(PROMPTS, ours, strict=True):
        expected = model.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
        assert [list(c.tokens) for c in group] == [expected[0, len(prompt) :].tolist()] * 2


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_logprobs_are_of_the_sampling_distribution(loaded: Any, engine: HFEngine, temperature: float) -> None:
    model, _ = loaded
    groups = engine.generate(ask(*PROMPTS, n=3), Sampling(max_tokens=9, temperature=temperature, seed=4))
    rows, sampled = [], flat(groups)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for one in group:
            assert len(one.tokens) == len(one.logprobs)
            for t, (token, logprob) in enumerate(zip(one.tokens, one.logprobs, strict=True)):
                logps = (next_logits(model, [*prompt, *one.tokens[:t]]) / temperature).log_softmax(-1)
                assert logprob == pytest.approx(float(logps[token]), abs=1e-4)
            completion = one.tokens
            rows.append(Example((Row(np.array(prompt, np.int32), completion, np.ones(len(completion), np.bool_)),), ""))
    drawn = collect_demonstrations(rows, progress=0.0)
    with torch.no_grad():
        inputs = model_inputs(drawn.rows, drawn.batch, pad_id=0)
        scored = Scorer(temperature=temperature).score(model, inputs, drawn.batch.loss_mask).logp
    for logps, one in zip(scored, sampled, strict=True):
        torch.testing.assert_close(logps[: len(one.tokens)], torch.tensor(one.logprobs), rtol=0, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.6, 1.7])
def test_first_tokens_follow_the_softmax(loaded: Any, engine: HFEngine, temperature: float) -> None:
    count = 3000
    sampled = flat(engine.generate(ask([7, 8], n=count), Sampling(max_tokens=1, temperature=temperature, seed=11)))
    p = (next_logits(loaded[0], [7, 8]) / temperature).softmax(-1).numpy()
    observed = np.bincount([one.tokens[0] for one in sampled], minlength=len(p))
    rare = p * count < 5  # the test wants five expected in each cell: the rare tokens share one
    expected = np.append(p[~rare], p[rare].sum()) * count
    observed = np.append(observed[~rare], observed[rare].sum())
    filled = expected > 0
    assert observed[~filled].sum() == 0
    assert stats.chisquare(observed[filled], expected[filled] * count / expected.sum()).pvalue > 0.01


@pytest.mark.parametrize(("top_k", "top_p"), [(1, 1.0), (3, 1.0), (0, 0.5), (0, 0.9), (0, 1e-9), (5, 0.7), (1000, 1.0)])
def test_top_k_and_top_p_restrict_the_support_and_renormalise(
    loaded: Any, engine: HFEngine, top_k: int, top_p: float
) -> None:
    p = next_logits(loaded[0], [7, 8]).softmax(-1)
    order = p.argsort(descending=True).tolist()
    kept = order[: top_k or None]
    total, nucleus = sum(float(p[i]) for i in kept), list[int]()
    for i in kept:  # the smallest set of the most probable that reaches top_p
        nucleus.append(i)
        if sum(float(p[j]) for j in nucleus) >= top_p * total:
            break
    sampled = flat(engine.generate(ask([7, 8], n=600), Sampling(max_tokens=1, top_k=top_k, top_p=top_p)))
    assert {one.tokens[0] for one in sampled} <= set(nucleus)
    mass = sum(float(p[i]) for i in nucleus)
    for one in sampled:
        assert one.logprobs[0] == pytest.approx(float((p[one.tokens[0]] / mass).log()), abs=1e-4)


def test_a_sample_does_not_depend_on_its_neighbours(engine: HFEngine) -> None:
    sampling = Sampling(max_tokens=10, temperature=1.3, seed=2)
    whole = engine.generate(ask(*PROMPTS, n=3), sampling)
    tokens = [[one.tokens.tolist() for one in group] for group in whole]
    for at in range(len(PROMPTS)):
        alone = engine.generate([Request(PROMPTS[at], n=3, question=at)], sampling)
        assert [one.tokens.tolist() for one in flat(alone)] == tokens[at]
    alone = engine.generate(ask(*PROMPTS), sampling)
    assert [group[0].tokens.tolist() for group in alone] == [group[0] for group in tokens]
    assert engine.generate(ask(*PROMPTS, n=3), sampling) == whole


def test_seed_step_question_and_sample_all_make_another_sample(engine: HFEngine) -> None:
    def drawn(**options: Any) -> list[tuple[tuple[int, ...], ...]]:
        groups = engine.generate(ask([7, 8], [7, 8], n=4), Sampling(max_tokens=10, temperature=1.5, **options))
        return [tuple(tuple(one.tokens) for one in group) for group in groups]

    groups = [*drawn(), *drawn(seed=1), *drawn(step=1)]
    assert len(set(groups)) == len(groups) and all(len(set(group)) > 1 for group in groups)
    keys = product((0, 1), (0, 1), (0, 11), (0, 1))
    seeds = {sample_seed(Sampling(max_tokens=1, seed=a, step=b), c, d) for a, b, c, d in keys}
    assert len(seeds) == 16 and all(0 <= seed < 2**64 for seed in seeds)


def test_ends_and_lengths(engine: HFEngine) -> None:
    sampled = flat(engine.generate(ask(*PROMPTS, n=40), Sampling(max_tokens=15, temperature=1.5)))
    assert {one.finish for one in sampled} == {"stop", "length"}
    for one in sampled:
        assert END not in one.tokens[:-1]
        assert (one.finish == "stop") == (one.tokens[-1] == END)
        assert one.finish == "stop" or len(one.tokens) == 15


def test_every_end_of_the_generation_config_ends(loaded: Any) -> None:
    model, tokenizer = loaded
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [END, 9, 10]
    try:
        sampled = flat(HFEngine(model, tokenizer).generate(ask([7], n=60), Sampling(max_tokens=12, temperature=2.0)))
    finally:
        model.generation_config.eos_token_id = before
    assert {one.tokens[-1] for one in sampled if one.finish == "stop"} == {END, 9, 10}
    assert not any({END, 9, 10} & set(one.tokens[:-1]) for one in sampled)


def test_stop_strings_end_where_they_are_complete(loaded: Any, engine: HFEngine) -> None:
    free = Sampling(max_tokens=15, temperature=1.0, seed=3)
    stop = ("ab", "t", "hij")
    for one, stopped in zip(
        flat(engine.generate(ask(*PROMPTS, n=20), free)),
        flat(engine.generate(ask(*PROMPTS, n=20), Sampling(max_tokens=15, temperature=1.0, seed=3, stop=stop))),
        strict=True,
    ):
        ids = one.tokens.tolist()
        texts = [loaded[1].decode(ids[: i + 1]) for i in range(len(ids))]
        ends = [i for i, text in enumerate(texts) if any(s in text for s in stop)]
        assert stopped.tokens.tolist() == (ids[: ends[0] + 1] if ends else ids)
        assert stopped.finish == ("stop" if ends else one.finish)


def test_a_prefix_is_context_and_counts_towards_the_length(loaded: Any, engine: HFEngine) -> None:
    greedy = Sampling(max_tokens=8, temperature=0.0)
    [[whole]] = engine.generate(ask([7, 8]), greedy)
    prefix = whole.tokens[:3].tolist()
    [[rest]] = engine.generate([Request([7, 8], prefix=prefix)], greedy)
    assert prefix + rest.tokens.tolist() == whole.tokens.tolist() and rest.finish == whole.finish
    [[only]] = engine.generate([Request([], prefix=[7, 8])], greedy)
    assert len(only.tokens) <= 6


@pytest.mark.parametrize(
    ("request_", "reason"),
    [(Request([]), "request 1 has an empty prompt"), (Request([7], prefix=[8] * 4), "leaves no room in max_tokens")],
)
def test_requests_that_cannot_be_answered(engine: HFEngine, request_: Request, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        engine.generate([Request([7]), request_], Sampling(max_tokens=4))


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": -1}])
def test_samplings_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="are needed"):
        Sampling(**{"max_tokens": 1, **options})


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_put_back_even_after_an_error(loaded: Any, engine: HFEngine, training: bool) -> None:
    model, _ = loaded
    model.train(training)
    try:
        engine.generate(ask([7]), Sampling(max_tokens=2))
        assert model.training is training
        with pytest.raises(IndexError):
            engine.generate(ask([10_000]), Sampling(max_tokens=2))
        assert model.training is training
    finally:
        model.eval()


def test_requests_are_answered_in_order_with_the_version_of_the_weights(loaded: Any) -> None:
    model, tokenizer = loaded
    engine = HFEngine(model, tokenizer)
    engine.sync(model, 7)
    requests = [Request(PROMPTS[i % 4], n=i % 3) for i in range(9)]
    answers = engine.generate(requests, Sampling(max_tokens=3))
    assert [len(group) for group in answers] == [request.n for request in requests]
    assert {one.version for one in flat(answers)} == {7}
    assert engine.generate([], Sampling(max_tokens=3)) == []
    engine.close()


def test_more_samples_than_fit_at_once_are_the_same(engine: HFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = Sampling(max_tokens=6, temperature=1.2)
    whole = [one.tokens.tolist() for one in flat(engine.generate(ask(*PROMPTS, n=3), sampling))]
    monkeypatch.setattr("posttrain.rollout.hf.ROWS", 4)
    assert [one.tokens.tolist() for one in flat(engine.generate(ask(*PROMPTS, n=3), sampling))] == whole
