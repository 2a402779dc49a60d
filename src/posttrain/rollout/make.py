"""The engine that a recipe names."""

from __future__ import annotations

from typing import Any

from posttrain.distributed.sharding import elements
from posttrain.errors import SetupError
from posttrain.rollout.engine import RolloutEngine, Sampling
from posttrain.rollout.hf import ROWS, HFEngine
from posttrain.settings.rollout import Sampled, SamplingConfig
from posttrain.telling import tell

FAST, SLOW = 3e11, 4e10  # bytes a second that a GPU gathers from others of its machine, and over a network of 400 Gb/s


def make_engine(
    config: SamplingConfig | None,
    model: Any,
    tokenizer: Any,
    *,
    compute: str,
    allow_remote: bool,
    lockstep: bool = False,
) -> RolloutEngine:
    """The embedded engine where there is no `rollout`; `lockstep` is of `HFEngine`, and vLLM serves what the trainer computes
    in, where `rollout.vllm.dtype` is not set.

    Raises:
        SetupError: the engine is not installed, or cannot serve this model.
        EngineError: it does not start.
    """
    if config is None or config.engine == "hf":
        if config is None or config.hf.batching == "loop":
            if lockstep and config is not None:
                tell("engine-hf-shared-out", gathering(model, config.max_tokens))
            return HFEngine(model, tokenizer, lockstep=lockstep)
        if lockstep:
            raise SetupError(
                "rollout.hf.batching: continuous samples in a thread of its own and cannot gather a model that is spread "
                "over processes. Take batching: loop, or engine: vllm."
            )
        from posttrain.rollout.continuous import ContinuousEngine

        return ContinuousEngine(model, tokenizer)
    from posttrain.rollout.vllm.engine import VLLMEngine

    served = config.vllm
    if served.dtype is None and compute != "float64":
        served = served.model_copy(update={"dtype": compute})
    return VLLMEngine(model, tokenizer, served, allow_remote=allow_remote)


def gathering(model: Any, tokens: int) -> str:
    """What sampling with a model costs that is spread over ranks: every token gathers all of it."""
    size = sum(elements(p) * p.element_size() for p in model.parameters())
    return (
        f"engine: hf samples with a model that the processes share out: each token gathers all of its weights, "
        f"{size / 1e9:.3g} GB. By arithmetic, for at most {ROWS} answers of {tokens} tokens together, these take "
        f"{tokens * size / FAST:.3g} s within a machine ({FAST / 1e9:g} GB/s) and {tokens * size / SLOW:.3g} s between "
        f"machines ({SLOW / 1e9:g} GB/s). Take engine: vllm for a large model."
    )


def sampling_of(config: Sampled, seed: int) -> Sampling:
    """How a recipe samples, for training or for an evaluation."""
    return Sampling(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        stop=tuple(config.stop),
        seed=seed,
    )
