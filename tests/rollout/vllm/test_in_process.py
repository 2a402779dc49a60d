"""Where vLLM in the process runs: on the GPU of its rank, which is asked of the engine itself."""

from __future__ import annotations

import pytest
import torch

from posttrain.errors import SetupError
from posttrain.rollout.vllm.in_process import check_device, launched


def test_several_processes_on_gpus_are_told_to_vllm_and_one_is_not() -> None:
    assert launched(several=True) == {"distributed_executor_backend": "external_launcher"}
    assert not launched(several=False)


@pytest.mark.parametrize(("served", "own"), [("cuda:0", "cuda:1"), ("cpu", "cuda:0"), ("cuda", "cuda:2")])
def test_an_engine_on_another_device_than_its_trainer_is_refused(served: str, own: str) -> None:
    with pytest.raises(SetupError, match=f"engine is on {served}, and this process trains on {own}"):
        check_device(torch.device(served), torch.device(own))


@pytest.mark.parametrize(("served", "own"), [("cuda:1", "cuda:1"), ("cuda", "cuda:0"), ("cpu", "cpu")])
def test_an_engine_on_its_trainers_device_passes(served: str, own: str) -> None:
    check_device(torch.device(served), torch.device(own))
