"""What vLLM is asked and answers, in the process or over HTTP alike."""

from __future__ import annotations

from collections.abc import Sequence
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
    for device in config.devices:
        if (device == "cpu") == (gpus > 0) or (device != "cpu" and device >= gpus):
            raise SetupError(f"rollout.vllm.devices: {device} is not there: this run sees {gpus or 'no'} GPUs.")


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
    of_device = {"gpu_memory_utilization": config.gpu_memory_utilization}
    if cpu:
        of_device = {"enforce_eager": True, "enable_chunked_prefill": False}
    return {
        "model": str(folder),
        "dtype": dtype,
        "load_format": "dummy" if config.transport == "tensors" else "auto",
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "seed": 0,
        "max_num_seqs": config.max_num_seqs,
        "tensor_parallel_size": config.tensor_parallel_size,
        "enable_prefix_caching": config.prefix_caching,
        **({"max_model_len": config.max_model_len} if config.max_model_len is not None else {}),
        **of_device,
    }
