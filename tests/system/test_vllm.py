"""Real vLLM, in the process and as a server: the engine contract, the proof of each sync, and what happens when it dies.

A missing vLLM is a failure here: `make setup-vllm`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
import torch

from episodes import QUESTIONS, collection_of, player, row
from posttrain import EngineError, Request, Sampling, VLLMConfig, VLLMEngine, build_algorithm
from posttrain.data.reader import Reader
from posttrain.data.sources import Record
from posttrain.environments.base import Start
from posttrain.environments.kinds.echo import EchoConfig
from posttrain.environments.kinds.guess import GuessConfig
from posttrain.errors import SetupError
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.rewards.base import Weighted
from posttrain.rollout.hf import HFEngine
from posttrain.rollout.vllm.server import Server
from posttrain.settings.data import Encoding
from posttrain.settings.model import Adapter
from posttrain.telling import hearing
from posttrain.train.collect.episodes.player import Asked
from rollout.engine_contract import EngineContract, Subject, of_model
from system.processes import gone
from tiny import Thirds, make_model

pytestmark = pytest.mark.system
PLAIN = Encoding(chat_template=False)
KINDS = {
    "in_process_untied": ({}, VLLMConfig(probe_every=1)),
    "in_process_tied_by_disk": ({"tie_word_embeddings": True}, VLLMConfig(weights="disk", probe_every=1)),
    "server_tied": ({"tie_word_embeddings": True}, VLLMConfig(mode="server", deadline=30, probe_every=1)),
}


@pytest.fixture(scope="module", params=KINDS)
def loaded(request: pytest.FixtureRequest) -> Iterator[tuple[VLLMEngine, Any, Any]]:
    fields, config = KINDS[request.param]
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512, **fields)
    engine = VLLMEngine(model.eval(), tokenizer, config)
    with pytest.raises(EngineError, match="call sync"):
        engine.generate([Request([60])], Sampling(max_tokens=1))
    engine.sync(model, 0)
    yield engine, model, tokenizer
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="was closed"):
        engine.sync(model, 1)


@pytest.fixture
def subject(loaded: Any) -> Subject:
    engine, model, tokenizer = loaded
    engine.sync(model, 0)
    return of_model(engine, model, tokenizer)


class TestVLLM(EngineContract):
    pass


def change(model: Any, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=rng))


def test_each_sync_is_proved(loaded: Any) -> None:
    engine, model, _ = loaded
    for version in (1, 2):
        change(model, version)
        engine.sync(model, version)
        assert engine.probe_difference < 1e-4 and engine.version == version


def test_one_turn_is_sampled_as_without_an_environment(loaded: Any) -> None:
    """To the last bit."""
    engine, model, tokenizer = loaded
    ends = eos_ids(model, tokenizer)
    columns = [{"prompt": f"{i}+{i}=", "answer": str(2 * i)} for i in range(QUESTIONS)]
    asked = [row(one, Start([{"role": "user", "content": one["prompt"]}])) for one in columns]
    reader = Reader(PLAIN, tokenizer, ends)
    plain, played = (
        collection_of(
            build_algorithm("grpo", rollouts=4, updates=1),
            engine,
            model,
            tokenizer,
            plays,
            reader.problems((Record("", one) for one in of), needs=(), anything=True)[0],
            Weighted(Thirds()),
        )
        for plays, of in (
            (None, columns),
            (player(EchoConfig(max_turns=1), engine, tokenizer, PLAIN, ends), asked),
        )
    )
    assert plain.flat.fields.keys() == played.flat.fields.keys()
    for name, value in plain.flat.fields.items():
        assert torch.equal(played.flat.fields[name], value), name


def test_greedy_episodes_are_those_over_transformers(loaded: Any) -> None:
    engine, model, tokenizer = loaded
    engine.sync(model, 0)
    config = GuessConfig(max_turns=4, turn_tokens=5, question="?", before="[", after="]")
    start = Start([{"role": "user", "content": "?"}])
    columns = [{"split": "train", "seed": 0, "number": i} for i in range(6)]
    asked = [
        Asked(i, tokenizer.encode(f"{i}?", add_special_tokens=False), row(one, start), 1) for i, one in enumerate(columns)
    ]
    ours, others = (
        [
            [turn.ids.tolist() for turn in group[0].played]
            for group in player(config, of, tokenizer, PLAIN, eos_ids(model, tokenizer)).play(
                asked, Sampling(max_tokens=20, temperature=0.0)
            )
        ]
        for of in (engine, HFEngine(model, tokenizer))
    )
    assert ours == others and all(len(turns) == 4 for turns in ours)
    assert len({str(turns) for turns in ours}) > 1


def _nothing(*_: Any) -> None:
    pass


@pytest.mark.parametrize("control", ["skipped", "stale_cache", "partial"])
def test_a_sync_that_did_not_arrive_is_refused(loaded: Any, control: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, model, _ = loaded
    change(model, 3)
    send = engine._transport.send
    if control == "skipped":
        monkeypatch.setattr(engine._transport, "send", _nothing)
    elif control == "stale_cache":
        monkeypatch.setattr(engine._backend, "reset_prefix_cache", _nothing)
    else:
        stale = {name: tensor.clone() for name, tensor in model.state_dict().items() if "layers.1.mlp.down" in name}
        change(model, 4)

        def partly(weights: Any, version: int) -> None:
            send(((name, stale.get(name, tensor)) for name, tensor in weights), version)

        monkeypatch.setattr(engine._transport, "send", partly)
    with pytest.raises(EngineError, match="does not sample from the trainer's weights"):
        engine.sync(model, 5)
    with pytest.raises(EngineError, match="call sync"):
        engine.generate([Request([60])], Sampling(max_tokens=1))
    monkeypatch.undo()
    engine.sync(model, 6)
    assert engine.probe_difference < 1e-4


def test_a_sync_that_did_nothing_is_refused_however_small_the_change_was(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 hides a small change from the probe's bound; that the engine answers as before, to the last bit, does not."""
    engine, model, _ = loaded
    with torch.autocast("cpu", torch.bfloat16):
        engine.sync(model, 1)
        engine.sync(model, 2)  # the same weights, the same answers: nothing is wrong with that
        with torch.no_grad():
            model.get_input_embeddings().weight[60] += 1e-4
        monkeypatch.setattr(engine._transport, "send", _nothing)
        with pytest.raises(EngineError, match="to the last bit, though the trainer's weights have changed"):
            engine.sync(model, 3)
        monkeypatch.undo()
        engine.sync(model, 3)


def test_syncs_between_two_whole_proofs_still_find_one_that_did_nothing(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, model, _ = loaded
    monkeypatch.setattr(engine, "_config", engine._config.model_copy(update={"probe_every": 1000}))
    scored: list[int] = []
    check = engine._probe.check

    def noted(*given: Any, **served: Any) -> Any:
        scored.append(given[2])
        return check(*given, **served)

    monkeypatch.setattr(engine._probe, "check", noted)
    monkeypatch.setattr(engine, "_syncs", 8)
    for version in range(8, 13):
        change(model, version)
        engine.sync(model, version)
    assert scored == [8, 9]
    change(model, 13)
    monkeypatch.setattr(engine._transport, "send", _nothing)
    with pytest.raises(EngineError, match="as before, to the last bit"):
        engine.sync(model, 13)
    monkeypatch.undo()
    engine.sync(model, 14)
    assert engine.probe_difference < 1e-4


def test_an_adapter_is_merged_on_the_way_and_the_base_stays() -> None:
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512, adapter=Adapter(r=4))
    change(model, 1)  # an adapter begins at zero
    base = {name: p.clone() for name, p in model.named_parameters()}
    engine = VLLMEngine(model, tokenizer)
    try:
        engine.sync(model, 1)
        assert engine.probe_difference < 1e-4
    finally:
        engine.close()
    assert all(torch.equal(p, base[name]) for name, p in model.named_parameters())


def test_float32_masters_are_served_in_bfloat16_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent is cast, and so is what the sync looks at: weights that round to the same need not answer otherwise."""
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    engine = VLLMEngine(model.eval(), tokenizer, VLLMConfig(dtype="bfloat16"))
    try:
        backend: Any = engine._backend
        assert backend._llm.llm_engine.model_config.dtype == torch.bfloat16
        engine.sync(model, 0)
        assert 1e-4 < engine.probe_difference < 0.25  # its products are of bfloat16
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(1 + 2**-12)  # of which nothing is left when it is rounded
        engine.sync(model, 1)
        change(model, 1)
        monkeypatch.setattr(engine._transport, "send", _nothing)
        with pytest.raises(EngineError, match="does not sample from the trainer's weights"):
            engine.sync(model, 2)
        monkeypatch.undo()
        engine.sync(model, 3)
        assert engine.probe_difference < 0.25
    finally:
        engine.close()


def test_what_cannot_be_served_is_refused_before_anything_starts() -> None:
    model, tokenizer = make_model(dtype="float64")
    with pytest.raises(SetupError, match="float32 and bfloat16"):
        VLLMEngine(model, tokenizer)
    model, tokenizer = make_model(dtype="float32")
    remote = VLLMConfig(mode="server", url="http://192.0.2.1:8000", weights_folder="/nowhere")
    with pytest.raises(SetupError, match="--allow-remote-engine"):
        VLLMEngine(model, tokenizer, remote)


def test_of_two_servers_one_is_killed_in_mid_collection_and_the_same_tokens_come_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=2048)
    config = VLLMConfig(mode="server", devices=["cpu", "cpu"], deadline=60, max_num_seqs=5)
    engine = VLLMEngine(model.eval(), tokenizer, config)
    backend: Any = engine._backend
    groups = [server.pid for server in backend.running]
    asked, sampling = [Request([60 + i], n=4, question=i) for i in range(10)], Sampling(max_tokens=100)
    answered: dict[str, int] = {}
    original = Server._completion

    async def killing(server: Server, *given: Any) -> Any:
        answer = await original(server, *given)
        answered[server.url] = answered.get(server.url, 0) + 1
        if server.pid == groups[0] and answered[server.url] == 6:
            os.killpg(groups[0], signal.SIGKILL)
        return answer

    try:
        engine.sync(model, 0)
        undisturbed = engine.generate(asked, sampling)
        monkeypatch.setattr(Server, "_completion", killing)
        with hearing() as heard:
            found = engine.generate(asked, sampling)
        assert [one.rule for one in heard] == ["engine-lost"] and "It ended with -9" in heard[0].sentence
        assert [server.pid for server in backend.running] == groups[1:] and gone(groups[0], within=5)
        first, second = (count for _, count in sorted(answered.items(), key=lambda one: one[1]))
        assert 6 <= first < 20 < second, "both had answered before, and what was lost was asked again"
        for one, other in zip(chain(*found), chain(*undisturbed), strict=True):
            assert one.tokens.tolist() == other.tokens.tolist() and one.finish == other.finish
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        change(model, 1)
        engine.sync(model, 1)
        assert engine.probe_difference < 1e-4
    finally:
        engine.close()
    assert all(gone(group, within=5) for group in groups)


def test_a_server_that_dies_in_the_middle_is_an_error_and_leaves_nothing() -> None:
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=2048)
    engine = VLLMEngine(model.eval(), tokenizer, VLLMConfig(mode="server", deadline=4, max_num_seqs=4))
    backend: Any = engine._backend
    [group] = [server.pid for server in backend.running]
    try:
        engine.sync(model, 0)
        threading.Timer(1.0, os.killpg, (group, signal.SIGKILL)).start()
        with pytest.raises(EngineError, match="is lost"):
            requests = [Request([60], n=64, question=i) for i in range(64)]
            engine.generate(requests, Sampling(max_tokens=1500, temperature=0.3))
    finally:
        engine.close()
    assert gone(group, within=5)
