"""The engine that a recipe names."""

from __future__ import annotations

from typing import Any

from posttrain.rollout.engine import RolloutEngine, Sampling
from posttrain.rollout.hf import HFEngine
from posttrain.settings.evaluation import EvalConfig
from posttrain.settings.rollout import SamplingConfig


def make_engine(
    config: SamplingConfig | None, model: Any, tokenizer: Any, *, allow_remote: bool, lockstep: bool = False
) -> RolloutEngine:
    """The embedded engine where there is no `rollout`; `lockstep` is of `HFEngine`.

    Raises:
        SetupError: the engine is not installed, or cannot serve this model.
        EngineError: it does not start.
    """
    if config is None or config.engine == "hf":
        return HFEngine(model, tokenizer, lockstep=lockstep)
    from posttrain.rollout.vllm.engine import VLLMEngine

    return VLLMEngine(model, tokenizer, config.vllm, allow_remote=allow_remote)


def rollout_sampling(config: SamplingConfig, seed: int) -> Sampling:
    """How a recipe samples for training."""
    return Sampling(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        stop=tuple(config.stop),
        seed=seed,
    )


def evaluation_sampling(config: EvalConfig) -> Sampling:
    """How a recipe's evaluation samples."""
    return Sampling(max_tokens=config.max_tokens, temperature=config.temperature, top_p=config.top_p, seed=config.seed)
