"""From an engine whose servers another process may use to the collector of what is sampled ahead over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.data.rows import Problem
from posttrain.errors import SetupError
from posttrain.estimator.algorithm import Algorithm
from posttrain.rollout.engine import RolloutEngine, Sampling
from posttrain.rollout.parcel import SendsParcels
from posttrain.train.collect.ahead.collector import AheadCollector
from posttrain.train.collect.ahead.messages import Work
from posttrain.train.collect.ahead.sampler import Ahead


def ahead_collector(
    ahead: Ahead,
    data: Sequence[Problem],
    algorithm: Algorithm,
    engine: RolloutEngine,
    sampling: Sampling,
    tokenizer: Any,
    steps: int,
    options: Mapping[str, Any],
) -> Collector:
    """Over the servers of an engine that another process may use.

    Raises:
        SetupError: it has none; or the algorithm has no correction for what older weights have sampled, or adds steps.
    """
    if not isinstance(engine, SendsParcels):
        kind = type(engine).__name__
        raise SetupError(f"Rollouts are sampled ahead by vLLM servers, VLLMConfig(mode='server'), not by {kind}.")
    if not algorithm.corrected:
        raise SetupError(f"Rollouts that are sampled ahead are of older weights: {algorithm.name} needs a correction.")
    if algorithm.needs.adds_steps:
        raise SetupError(f"{algorithm.name} adds steps that nobody knows beforehand: leave ahead None, or sft_step: same.")
    work = Work(
        algorithm=ahead.algorithm,
        rewards=ahead.rewards,
        judged=ahead.judged,
        problems=data,
        served=engine.served(),
        sampling=sampling,
        tokenizer=tokenizer,
        options=options,
        state=None,
    )
    return AheadCollector(ahead, engine, work, updates=algorithm.needs.updates, steps=steps)
