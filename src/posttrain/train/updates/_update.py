"""What an update rule is: what happens to gradients before a step and to weights after it, beside the optimizer's doing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from posttrain.settings.base import Config

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

Named: TypeAlias = "Mapping[str, Parameter]"
"""Trained parameters by their names in the model."""


class Update:
    """A rule as it runs. All of it is called without gradients, with the number of the step, from 1; a step that is left out,
    since something in it is not finite, changes nothing here either.
    """

    def start(self, named: Named) -> None:
        """Before the first step, with the weights of the start, also where the run goes on.

        Raises:
            SetupError: these parameters cannot be had so.
        """

    def on_gradients(self, named: Named, step: int) -> None:
        """Once all of a step's gradients are there, before they are clipped. Some may be None."""

    def on_weights(self, named: Named, optimizer: Any, step: int) -> None:
        """Once the optimizer has changed the weights. Its param groups have the step's learning rates."""

    def shown(self) -> Mapping[str, Tensor]:
        """What is evaluated and is there at the end in place of the weights that are trained; nothing: they are."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What it remembers, for a checkpoint."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` gave."""


class UpdateConfig(Config, ABC):
    """The options of one rule."""

    of_adapters: ClassVar[bool] = False
    """It is of the matrices of a LoRA adapter alone."""
    of_whole_models: ClassVar[bool] = False
    """It is of parameters that an adapter leaves as they are."""
    copies: ClassVar[int] = 0
    """Of the trained parameters, that it keeps."""

    name: str
    """Which rule; the other keys here are its options."""

    @abstractmethod
    def build(self, seed: int) -> Update:
        """The rule that these options describe. `seed` is of the run."""


def rates(optimizer: Any) -> dict[int, float]:
    """The learning rate of the step, of each parameter by its id."""
    return {id(parameter): float(group["lr"]) for group in optimizer.param_groups for parameter in group["params"]}


def forget(optimizer: Any, parameter: Parameter) -> None:
    """What the optimizer remembers of it is gone, as if it were new."""
    getattr(optimizer, "optimizer", optimizer).state.pop(parameter, None)
