"""What vLLM is asked and answers, in the process or over HTTP alike."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from posttrain.errors import EngineError, SetupError
from posttrain.rollout.engine import Sampling
from posttrain.settings.rollout import VLLMConfig


@dataclass(frozen=True, slots=True)
class Ask:
    """One sample."""

    prompt: list[int]
    max_tokens: int
    seed: int
    temperature: float | None = None
    """Its own, in place of that of all."""

    def options(self, of_all: Mapping[str, Any]) -> dict[str, Any]:
        """Of its sample, by vLLM's names."""
        own = {} if self.temperature is None else {"temperature": self.temperature}
        return {**of_all, "max_tokens": self.max_tokens, "seed": self.seed, **own}


@dataclass(frozen=True, slots=True)
class Answer:
    """Its tokens, the end among them, and the log-prob of each."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"]


def check_usable(config: VLLMConfig, *, allow_remote: bool) -> None:
    """Refuses, before anything is loaded, what cannot be started or may not be used.

    Raises:
        SetupError: vLLM is to run here and is not installed, a device is not there, or a server is on another machine
            without leave.
    """
    if config.remote and not allow_remote:
        raise SetupError(
            f"{config.remote[0]} is not on this machine, and no key guards vLLM's control routes. Who wants that all the "
            "same says --allow-remote-engine (in Python: allow_remote=True, or allow_remote_engine=True of run)."
        )
    if not config.addresses and find_spec("vllm") is None:
        raise SetupError("vLLM is not installed: pip install 'posttrain[vllm]', or make setup-vllm on a CPU.")
    gpus = torch.cuda.device_count()
    if config.sleep and not gpus:
        raise SetupError(
            "rollout.vllm.sleep gives the engine's part of a GPU's memory back, and this run sees no GPU: vLLM does not "
            "sleep on a CPU. Take sleep: false."
        )
    if config.transfers:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        check_transfer(config, gpus, [torch.cuda.current_device()] if here == 1 and gpus else range(here))
    for device in config.devices:
        if (device == "cpu") == (gpus > 0) or (device != "cpu" and device >= gpus):
            raise SetupError(f"rollout.vllm.devices: {device} is not there: this run sees {gpus or 'no'} GPUs.")


def check_transfer(config: VLLMConfig, gpus: int, trained_on: Sequence[int]) -> None:
    """Refuses vLLM's own transfer where the two sides do not stand as it needs them.

    Args:
        config: which has weights: ipc or nccl.
        gpus: how many this run sees.
        trained_on: those of the run's processes on this machine.

    Raises:
        SetupError: says what to take.
    """
    way = f"rollout.vllm.weights: {config.transport}"
    if not _has_transfer():
        raise SetupError(f"{way} is vLLM's own, of 0.28 and later (tested with 0.32), and none is here. Take weights: disk.")
    if not gpus:
        raise SetupError(f"{way} goes between processes on GPUs, and this run sees none. Take weights: disk.")
    if config.transport == "ipc" and len(trained_on) > 1:
        raise SetupError(f"{way} is of one process and a server on its GPU; here are {len(trained_on)}. Take weights: disk.")
    if config.transport == "ipc" and config.devices and config.devices[0] != trained_on[0]:
        raise SetupError(
            f"{way} reaches a server on the trainer's own GPU, which is {trained_on[0]}, and devices says "
            f"{config.devices[0]}. Take devices: [{trained_on[0]}], or weights: nccl."
        )
    if config.transport == "nccl" and config.devices and config.devices[0] in trained_on:
        raise SetupError(
            f"{way} goes from one GPU to another, and GPU {config.devices[0]} of devices is one that this run trains on. "
            "Take another, or weights: ipc."
        )


def _has_transfer() -> bool:
    """Whether the installed vLLM has a transfer of its own."""
    try:
        return find_spec("vllm.distributed.weight_transfer.factory") is not None
    except ModuleNotFoundError:  # nor what it would lie in
        return False


class Backend(Protocol):
    """A running vLLM, of one engine or several. Whatever fails, with no other engine left, raises EngineError."""

    context: int
    """Tokens of prompt and answer together."""

    @property
    def names(self) -> list[str]:
        """Of the engines that are left."""
        ...

    def submit(self, asks: Sequence[Ask], options: dict[str, Any]) -> list[Answer]:
        """Samples, in order; `options` are fields of vLLM's SamplingParams."""
        ...

    def each(self, ask: Ask, options: dict[str, Any]) -> dict[str, Answer]:
        """The answer of each engine, by its name."""
        ...

    def take_out(self, faults: dict[str, EngineError]) -> None:
        """Asks these engines, by their names, nothing more."""
        ...

    def rest(self) -> None:
        """Gives memory back, and with it the weights, until others are brought by `rpc`."""
        ...

    def rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        """Calls a method of every worker of every engine."""
        ...

    def reset_prefix_cache(self) -> None:
        """Forgets what was computed with earlier weights."""
        ...

    def close(self) -> None:
        """Ends what was started."""
        ...


def sampling_options(sampling: Sampling, ends: Sequence[int]) -> dict[str, Any]:
    """Every option that a model's generation config could set behind our back is given."""
    options: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop_token_ids": list(ends),
        "logprobs": 0,
    }
    if sampling.stop:
        options |= {"stop": list(sampling.stop), "include_stop_str_in_output": True, "skip_special_tokens": False}
    return options


def engine_arguments(config: VLLMConfig, folder: Path, dtype: str, *, cpu: bool) -> dict[str, Any]:
    """vLLM's own names. `generation_config: vllm` keeps a model's sampling defaults out. On CPU a prompt that is cut into
    chunks ends every request that has a seed: its generator cannot be wound back.
    """
    of_device: dict[str, Any] = {"gpu_memory_utilization": config.gpu_memory_utilization}
    if cpu:
        of_device = {"enforce_eager": True, "enable_chunked_prefill": False}
    return {
        "model": str(folder),
        "dtype": dtype,
        "load_format": "auto" if config.transport == "disk" else "dummy",
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "seed": 0,
        "max_num_seqs": config.max_num_seqs,
        "tensor_parallel_size": config.tensor_parallel_size,
        "enable_prefix_caching": config.prefix_caching,
        **({"max_model_len": config.max_model_len} if config.max_model_len is not None else {}),
        **({"enable_sleep_mode": True} if config.sleep else {}),
        **({"weight_transfer_config": json.dumps({"backend": config.transport})} if config.transfers else {}),
        **of_device,
    }
