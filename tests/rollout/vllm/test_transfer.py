"""Our side of vLLM's own weight transfer: where it cannot work, what is sent, and what stops it."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from posttrain import VLLMConfig
from posttrain.errors import EngineError, SetupError
from posttrain.model.weights import Described
from posttrain.rollout.vllm.backend import check_transfer, check_usable, engine_arguments
from posttrain.rollout.vllm.server import Server
from posttrain.rollout.vllm.transfer import Client, Source, Transfer
from rollout.vllm.test_vllm_client import MODELS, Fake

IPC, NCCL = VLLMConfig(mode="server", weights="ipc"), VLLMConfig(mode="server", weights="nccl", devices=[1])
DESCRIBED = [Described("a", torch.float32, (2, 3)), Described("b", torch.bfloat16, (7, 5)), Described("c", torch.int64, ())]


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vLLM with a transfer, as far as one asks whether it is installed."""
    monkeypatch.setattr("posttrain.rollout.vllm.backend.find_spec", lambda name: SimpleNamespace(name=name))


def test_a_vllm_without_a_transfer_is_told_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    for find in (missing, lambda name: None):
        monkeypatch.setattr("posttrain.rollout.vllm.backend.find_spec", find)
        with pytest.raises(SetupError, match=r"of 0\.28 and later .* and none is here\. Take weights: disk"):
            check_transfer(IPC, 2, [0])


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    ("config", "gpus", "trained_on", "says"),
    [
        (IPC, 0, [0], "weights: ipc goes between processes on GPUs, and this run sees none"),
        (NCCL, 0, [0], "weights: nccl goes between processes on GPUs, and this run sees none"),
        (IPC, 2, [0, 1], "is of one process and a server on its GPU; here are 2"),
        (IPC.model_copy(update={"devices": [1]}), 2, [0], r"own GPU, which is 0, and devices says 1. Take devices: \[0\]"),
        (NCCL, 2, [0, 1], "GPU 1 of devices is one that this run trains on"),
    ],
)
def test_where_the_two_sides_cannot_meet_it_is_refused(
    config: VLLMConfig, gpus: int, trained_on: Sequence[int], says: str
) -> None:
    with pytest.raises(SetupError, match=says):
        check_transfer(config, gpus, trained_on)


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("config", [IPC, IPC.model_copy(update={"devices": [0]}), NCCL])
def test_where_they_can_it_is_not(config: VLLMConfig) -> None:
    check_transfer(config, 2, [0])


@pytest.mark.usefixtures("there")
def test_a_cpu_is_refused_before_anything_starts() -> None:
    with pytest.raises(SetupError, match=r"this run sees none. Take weights: disk"):
        check_usable(IPC, allow_remote=False)


def test_an_engine_gets_its_weights_from_the_first_sync(tmp_path: Any) -> None:
    given = engine_arguments(IPC, tmp_path, "bfloat16", cpu=False)
    assert given["weight_transfer_config"] == '{"backend": "ipc"}' and given["load_format"] == "dummy"
    plain = engine_arguments(VLLMConfig(mode="server"), tmp_path, "bfloat16", cpu=False)
    assert "weight_transfer_config" not in plain and "enable_sleep_mode" not in plain and plain["load_format"] == "auto"
    assert engine_arguments(VLLMConfig(sleep=True), tmp_path, "bfloat16", cpu=False)["enable_sleep_mode"] is True


@pytest.fixture
def fake(request: pytest.FixtureRequest) -> Fake:
    server = Fake()
    request.addfinalizer(server.close)
    server.get["/v1/models"] = (200, MODELS)
    for path in ("/init_weight_transfer_engine", "/start_weight_update", "/update_weights", "/finish_weight_update"):
        server.post[path] = lambda body: (200, {})
    return server


def connected(fake: Fake, told: Any) -> Server:
    config = VLLMConfig(mode="server", url=fake.url, weights="nccl", deadline=0.5, start_deadline=1)
    fake.get["/server_info?config_format=json"] = (200, {"vllm_config": told})
    return Server(fake.url, config)


@pytest.mark.parametrize("told", [{}, {"weight_transfer_config": None}, {"weight_transfer_config": {"backend": "ipc"}}])
def test_a_server_that_was_not_started_for_it_is_refused(fake: Fake, told: Any) -> None:
    with pytest.raises(SetupError, match=r'does not take weights: nccl: .* --weight-transfer-config .{"backend": "nccl"}'):
        connected(fake, told)


def served(fake: Fake) -> Server:
    return connected(fake, {"weight_transfer_config": {"backend": "nccl"}})


def test_handles_are_pickled_and_all_else_is_json(fake: Fake) -> None:
    client = Client(served(fake))
    client.init_weight_transfer_engine({"packed": True})
    client.start_weight_update()
    client.update_weights({"names": ["a"], "shapes": [[2]], "ipc_handles": {"uuid": (torch.Tensor, b"x", 3)}})
    client.update_weights({"names": ["a"], "shapes": [[2]]})
    client.finish_weight_update()
    first, start, second, third, end = fake.bodies
    assert first == {"init_info": {"packed": True}} and start is None and end is None
    handles = second["update_info"].pop("ipc_handles_pickled")
    assert pickle.loads(base64.b64decode(handles)) == {"uuid": (torch.Tensor, b"x", 3)}
    assert second == third == {"update_info": {"names": ["a"], "shapes": [[2]]}}


def test_what_is_packed_has_room_for_the_largest() -> None:
    source = Source(DESCRIBED)
    assert source.largest == 2 * 7 * 5 and source.metadata() == DESCRIBED
    source.weights = iter([("a", torch.zeros(2, 3))])
    assert [name for name, _ in source] == ["a"]


def test_where_the_server_takes_nothing_nothing_more_is_sent(fake: Fake) -> None:
    """vLLM asks it in a thread beside the sending, which would wait for ever for who has gone."""
    fake.post["/update_weights"] = lambda body: (500, {"message": "out of memory"})
    transfer, sent = Transfer("nccl", served(fake), DESCRIBED, 30, lambda: None), list[str]()

    def sending() -> None:
        for name, _ in transfer._source:
            sent.append(name)
            with pytest.raises(EngineError):
                transfer._client.update_weights({})

    transfer._engine = SimpleNamespace(send_weights=sending, shutdown=lambda: pytest.fail("NCCL would wait"))
    with pytest.raises(EngineError, match=r"refuses /update_weights .500.: .*out of memory"):
        transfer.send(((one.name, torch.zeros(one.shape, dtype=one.dtype)) for one in DESCRIBED), 1)
    assert sent == ["a"]
    transfer.close()


def test_a_fault_of_the_sending_itself_is_one_of_the_engine(fake: Fake) -> None:
    transfer = Transfer("nccl", served(fake), DESCRIBED, 30, lambda: None)

    def sending() -> None:
        raise ValueError("metadata() disagrees with iteration")

    transfer._engine = SimpleNamespace(send_weights=sending)
    with pytest.raises(EngineError, match=r"by nccl to http.* failed: ValueError: metadata.. disagrees"):
        transfer.send(iter([]), 1)
