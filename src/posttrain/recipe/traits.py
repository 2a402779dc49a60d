"""What a recipe must know of its algorithm, by its config or by its needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from posttrain.algorithms.options import AlgorithmConfig

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


@dataclass(frozen=True, slots=True)
class Traits:
    """What a recipe must know of its algorithm."""

    rollouts: bool
    takes_demonstrations: bool
    reads_verdict: bool
    corrected: bool
    has_teacher: bool
    learns_from_rewards: bool
    measures_tokens: bool
    adds_steps: bool
    replaces_groups: bool

    @classmethod
    def of_config(cls, config: AlgorithmConfig) -> Traits:
        """Before it is built."""
        sampled = config.trains_on == "rollouts" or getattr(config, "pairs", None) is not None
        return cls(
            sampled,
            config.takes_demonstrations,
            config.reads_verdict,
            config.corrects or getattr(config, "correction", None) is not None,
            config.has_teacher,
            sampled and config.learns_from_rewards,
            config.measures_tokens,
            config.adds_steps,
            config.replaces_groups,
        )

    @classmethod
    def of_value(cls, algorithm: Algorithm) -> Traits:
        """Once it is built."""
        needs = algorithm.needs
        return cls(
            needs.rollouts > 0,
            needs.demonstrations > 0,
            needs.verdict,
            algorithm.corrected,
            needs.given_teacher,
            algorithm.learns_from_rewards,
            needs.measures_tokens,
            needs.adds_steps,
            needs.resample,
        )
