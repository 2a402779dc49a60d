"""The engine that a recipe names."""

from __future__ import annotations

from typing import Any

from posttrain.errors import SetupError
from posttrain.rollout.engine import RolloutEngine, Sampling
from posttrain.rollout.hf import HFEngine
from posttrain.settings.rollout import Sampled, SamplingConfig


def make_engine(
    config: SamplingConfig | None, model: Any, tokenizer: Any, *, allow_remote: bool, lockstep: bool = False
) -> RolloutEngine:
    """The embedded engine where there is no `rollout`; `lockstep` is of `HFEngine`.

    Raises:
        SetupError: the engine is not installed, or cannot serve this model.
        EngineError: it does not start.
    """
    if config is None or config.engine == "hf":
        if config is None or config.hf.batching == "loop":
            return HFEngine(model, tokenizer, lockstep=lockstep)
        if lockstep:
            raise SetupError(
                "rollout.hf.batching: continuous samples in a thread of its own and cannot gather a model that is spread "
                "over processes. Take batching: loop, or engine: vllm."
            )
        from posttrain.rollout.continuous import ContinuousEngine

        return ContinuousEngine(model, tokenizer)
    from posttrain.rollout.vllm.engine import VLLMEngine

    return VLLMEngine(model, tokenizer, config.vllm, allow_remote=allow_remote)


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
