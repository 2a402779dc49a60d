"""What the trainer and its sampler tell each other. No tensors: between processes torch would share their memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from posttrain.algorithms.options import AlgorithmConfig
from posttrain.data.rows import Problem
from posttrain.rewards.options import Judged, RewardConfig
from posttrain.rollout.engine import Sampling
from posttrain.rollout.parcel import Parcel, Served
from posttrain.telling import Told
from posttrain.train.collect.arrays import FIELD

VERSION = f"{FIELD}version"
ALIVE, BEAT = "alive", 0.2  # what a sampler says while it works, and every how many seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a run's collections are made of and by: what `RolloutCollector` takes, as data. `state` is its own."""

    algorithm: AlgorithmConfig
    rewards: Sequence[RewardConfig]
    judged: Judged
    problems: Sequence[Problem]
    served: Served
    sampling: Sampling
    tokenizer: Any
    options: Mapping[str, Any]
    state: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Asks for the collection that begins at an optimizer step, from a parcel's weights. A trainer's first has the work."""

    step: int
    progress: float
    parcel: Parcel
    work: Work | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A judged collection as arrays, the collector's state after it, what was told while it was made, and the time of day."""

    arrays: Mapping[str, NDArray[Any]]
    state: Mapping[str, Any]
    told: Sequence[Told]
    at: float
