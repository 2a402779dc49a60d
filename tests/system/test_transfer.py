"""vLLM's own weight transfer, from our trainer's side through its server to its workers, on a CPU.

Whoever sends, whoever receives, the routes between them, packing and loading are vLLM's; what CUDA gives is given by
`transfer_on_cpu`. That the transfer works on a GPU is not shown here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain import EngineError, Request, Sampling, VLLMConfig, VLLMEngine
from posttrain.rollout.vllm import transfer
from system.processes import gone
from system.transfer_on_cpu import take_effect
from tiny import make_model

pytestmark = pytest.mark.system
TESTS = Path(__file__).parents[1]
WAYS = {"ipc": VLLMConfig(mode="server", weights="ipc"), "nccl": VLLMConfig(mode="server", weights="nccl", devices=[0])}


@pytest.fixture(scope="module", params=WAYS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VLLMEngine, Any]]:
    plugin = tmp_path_factory.mktemp("plugin")
    described = plugin / "transfer_on_cpu-0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: transfer-on-cpu\nVersion: 0\n")
    (described / "entry_points.txt").write_text("[vllm.general_plugins]\ncpu = system.transfer_on_cpu:take_effect\n")
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512, tie_word_embeddings=True)
    config = WAYS[request.param].model_copy(update={"deadline": 30.0, "probe_every": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(plugin), str(TESTS), os.environ.get("PYTHONPATH", "")]))
        patch.setattr("posttrain.rollout.vllm.engine.check_usable", lambda *_, **__: None)
        patch.setattr(transfer, "PACKED_BYTES", 1)  # so that the largest tensor makes the measure, and several parts travel
        take_effect(patch.setattr)
        engine = VLLMEngine(model.eval(), tokenizer, config)
        yield engine, model
        engine.close()


def change(model: Any, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=rng))


def test_each_sync_is_proved(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, model = loaded
    server, asked = engine._transport._server, list[str]()
    post = server.post
    monkeypatch.setattr(server, "post", lambda path, body: asked.append(path) or post(path, body))
    for version in range(3):
        del asked[:]
        engine.sync(model, version)
        assert engine.probe_difference < 1e-4 and engine.version == version
        change(model, version)
    updates = asked.count("/update_weights")
    assert asked[:-1] == ["/start_weight_update", *["/update_weights"] * updates, "/finish_weight_update"]
    assert updates == 1 if engine._config.weights == "nccl" else updates > 2  # handles go a part at a time


def test_weights_that_came_in_part_are_refused(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, model = loaded
    engine.sync(model, 3)
    send = engine._transport.send
    stale = {name: tensor.clone() for name, tensor in model.state_dict().items() if "layers.1.mlp.down" in name}
    change(model, 3)
    monkeypatch.setattr(
        engine._transport, "send", lambda weights, version: send(((n, stale.get(n, t)) for n, t in weights), version)
    )
    with pytest.raises(EngineError, match="does not sample from the trainer's weights"):
        engine.sync(model, 4)
    monkeypatch.undo()
    engine.sync(model, 5)
    assert engine.probe_difference < 1e-4


def test_a_server_that_dies_is_an_error_and_no_hang(loaded: Any) -> None:
    engine, model = loaded
    [group] = [server.pid for server in engine._backend.running]
    os.killpg(group, signal.SIGKILL)
    assert gone(group, within=5)
    with pytest.raises(EngineError, match="is lost"):
        engine._transport.send(iter([]), 6)
    with pytest.raises(EngineError, match="is lost"):
        engine.sync(model, 6)
    with pytest.raises(EngineError, match="call sync"):
        engine.generate([Request([60])], Sampling(max_tokens=1))
