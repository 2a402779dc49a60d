"""What an engine is sent: the whole model under a plain checkpoint's names, written whole or not at all."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from posttrain.errors import EngineError
from posttrain.model import weights
from posttrain.model.weights import Fingerprint, Weights, described_weights, engine_weights
from posttrain.rollout.transports import DiskTransport, TensorTransport
from posttrain.settings.model import Adapter
from tiny import make_model, with_exact_norms


def _scramble(model: Any) -> None:
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("adapter", [None, Adapter(r=4), Adapter(r=4, alpha=64)], ids=["full", "lora", "strong"])
def test_the_weights_make_a_plain_model_with_the_same_logits(tied: bool, adapter: Adapter | None) -> None:
    model, _ = make_model(tie_word_embeddings=tied, adapter=adapter)
    _scramble(model)
    before = {name: p.clone() for name, p in model.named_parameters()}
    sent = {name: tensor.clone() for name, tensor in engine_weights(model.eval())}
    config = model.config
    config.tie_word_embeddings = False
    plain = with_exact_norms(AutoModelForCausalLM.from_config(config)).double()
    plain.load_state_dict(sent, strict=True)
    ids = torch.arange(60, 80)[None]
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(ids).logits, model(ids).logits, rtol=0, atol=1e-12)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("adapter", [None, Adapter(r=4)], ids=["full", "lora"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_what_will_come_is_described_as_it_comes(dtype: torch.dtype | None, adapter: Adapter | None) -> None:
    model, _ = make_model(dtype="float32", tie_word_embeddings=True, adapter=adapter)
    model.get_input_embeddings().register_buffer("shown", torch.zeros(3, dtype=torch.int64))  # which is not cast
    comes = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in engine_weights(model, dtype)]
    assert described_weights(model, dtype) == comes
    assert torch.int64 in {tensor.dtype for _, tensor in engine_weights(model, dtype)}


def test_weights_are_cast_on_their_way_and_the_fingerprint_is_of_what_is_sent() -> None:
    model, _ = make_model(dtype="float32")

    def sent() -> tuple[dict[str, Any], int]:
        taken = Fingerprint()
        return dict(taken.of(engine_weights(model, torch.bfloat16))), taken.value

    weights, first = sent()
    assert {name: value.dtype for name, value in weights.items()} == dict.fromkeys(model.state_dict(), torch.bfloat16)
    assert all(torch.equal(weights[name], value.bfloat16()) for name, value in model.state_dict().items())
    with torch.no_grad():
        model.lm_head.weight.copy_(weights["lm_head.weight"].float())  # another model, of which the same is sent
        assert sent()[1] == first
        model.lm_head.weight[0, 0] *= 1.01
    assert sent()[1] != first
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_fingerprint_is_another_one_when_the_last_bit_of_any_tensor_is(dtype: str) -> None:
    model, _ = make_model(dtype=dtype)

    def fingerprint() -> int:
        taken = Fingerprint()
        assert all(
            torch.equal(*pair)
            for pair in zip(_tensors(taken.of(engine_weights(model))), _tensors(engine_weights(model)), strict=True)
        )
        return taken.value

    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    for parameter in model.parameters():
        bits = parameter.detach().view(torch.int32 if dtype == "float32" else torch.int16)
        bits.view(-1)[-1] ^= 1
        seen.append(fingerprint())
    assert all(one != other for one, other in pairwise(seen)) and len(seen) > 10


def _tensors(weights: Weights) -> list[torch.Tensor]:
    return [tensor for _, tensor in weights]


def test_tensors_are_handed_over_as_they_are() -> None:
    called: list[tuple[str, Any]] = []
    TensorTransport(lambda method, kwargs: called.append((method, kwargs))).send(iter([("a", torch.ones(1))]), 3)
    [(method, kwargs)] = called
    assert method == "reload_weights" and [name for name, _ in kwargs["weights_iterator"]] == ["a"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def _read(folder: Path) -> dict[str, torch.Tensor]:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    read: dict[str, torch.Tensor] = {}
    for name, file in index["weight_map"].items():
        with safe_open(folder / file, framework="pt") as shard:
            read[name] = shard.get_tensor(name)
    return read


def test_a_folder_holds_every_tensor_in_shards(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SHARD_BYTES", 4 * 40)
    tensors = {f"w{i}": torch.randn(5, 4) for i in range(5)}
    tensors["tied"] = tensors["w0"]
    tensors["turned"] = tensors["w1"].T
    loaded: list[dict[str, torch.Tensor]] = []

    def rpc(method: str, kwargs: dict[str, Any]) -> None:
        assert method == "reload_weights"
        loaded.append(_read(Path(kwargs["weights_path"])))

    transport = DiskTransport(rpc, tmp_path / "sent", config)
    for version in (0, 1, 1):
        transport.send(iter(tensors.items()), version)
    assert len(loaded) == 3
    for read in loaded:
        assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert [path.name for path in (tmp_path / "sent").iterdir()] == ["weights-000001"]
    shards = list((tmp_path / "sent" / "weights-000001").glob("*.safetensors"))
    assert len(shards) == 4
    transport.close()
    assert not list((tmp_path / "sent").iterdir())


def test_weights_that_break_off_are_never_loaded(tmp_path: Path, config: Path) -> None:
    loaded: list[str] = []
    transport = DiskTransport(lambda method, kwargs: loaded.append(kwargs["weights_path"]), tmp_path / "sent", config)
    transport.send(iter([("a", torch.ones(2))]), 0)

    def broken() -> Any:
        yield "a", torch.zeros(2)
        raise EngineError("the trainer stopped here")

    with pytest.raises(EngineError, match="stopped here"):
        transport.send(broken(), 1)
    assert len(loaded) == 1
    assert torch.equal(_read(Path(loaded[0]))["a"], torch.ones(2))
    transport.send(iter([("a", torch.zeros(2))]), 1)
    assert torch.equal(_read(Path(loaded[1]))["a"], torch.zeros(2))
