"""What an optimizer's config is: its options, and how it is made of groups of parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from posttrain.settings.base import Config

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What an optimizer is made of.

    groups: param groups, each with `params`, `lr` and `weight_decay`.
    betas, epsilon: training.adam_beta1, adam_beta2 and extra.adam_epsilon.
    model: whose parameters they are.
    """

    groups: list[dict[str, Any]]
    betas: tuple[float, float]
    epsilon: float
    model: nn.Module


class OptimizerConfig(Config, ABC):
    """The options of one optimizer. Learning rate and weight decay are training's."""

    package: ClassVar[tuple[str, str] | None] = None
    """The package that it is of, if it is optional: its name in Python, and in the index."""
    whole_matrices: ClassVar[bool] = False
    """It needs each weight in its shape and whole, which modes that share out weights or states do not have."""
    reads_betas: ClassVar[bool] = False
    """It reads training.adam_beta1 and adam_beta2."""
    own_average: ClassVar[bool] = False
    """It averages weights in place of a decaying rate, and trains other weights than those that are saved."""
    name: str
    """Which optimizer; the other keys here are its options."""

    @property
    def remembers(self) -> bool:
        """Whether it keeps something of each parameter from step to step."""
        return True

    def state(self, number: int) -> float:
        """Bytes that it keeps of each parameter that is trained, itself of so many; the most, where parameters differ."""
        return 2.0 * number

    @abstractmethod
    def build(self, trained: Trained) -> Optimizer:
        """The optimizer that these options describe.

        Raises:
            ValueError: it cannot be had, or is none.
        """
