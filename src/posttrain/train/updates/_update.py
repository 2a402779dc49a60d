"""What an update rule is: what happens to gradients before a step and to weights after it, beside the optimizer's doing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from posttrain.settings.base import Config, Count
from posttrain.settings.data.sources import Source

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Parameter

Named: TypeAlias = "Mapping[str, Parameter]"
"""Trained parameters by their names in the model."""


class RowGradients(Protocol):
    """Gradients of the negative log-likelihood of single rows, the sum over their tokens that carry loss."""

    model: nn.Module
    """Whose they are."""

    def of(self, named: Named, *, own: bool = False) -> Iterator[dict[str, Tensor]]:
        """For each row of this rank the gradient of each parameter that has one, by its name. `own`: of tokens that the model
        draws itself in their places, each after what the row has before it.
        """
        ...

    def mean(self, total: Tensor) -> Tensor:
        """Over the rows of all ranks, of what is summed over those of this one."""
        ...


class Update:
    """A rule as it runs. All of it but `learn` is called without gradients, with the number of the step, from 1; a step that
    is left out, since something in it is not finite, changes nothing here either.
    """

    def start(self, named: Named) -> None:
        """Before the first step, with the weights of the start, also where the run goes on.

        Raises:
            SetupError: these parameters cannot be had so.
        """

    def learn(self, named: Named, rows: RowGradients) -> None:
        """Before the first step, not where the run goes on: what of the weights matters to rows of its own.

        Raises:
            SetupError: the model is of another kind.
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
    forgets: ClassVar[bool] = False
    """It takes from the optimizer what that remembers of parameters."""
    of_moments: ClassVar[bool] = False
    """It is of nothing else, and needs an optimizer that remembers something."""
    copies: ClassVar[int] = 0
    """Of the trained parameters, that it keeps."""

    name: str
    """Which rule; the other keys here are its options."""

    @abstractmethod
    def build(self, seed: int) -> Update:
        """The rule that these options describe. `seed` is of the run."""


class LearningConfig(UpdateConfig):
    """The options of a rule that learns from rows, before the first step, what of the weights matters to them."""

    of: Source | None = None
    """Where these rows are from: what is to be kept, of an earlier task or stage, with completions or texts as data.train."""
    rows: Count = 256
    """So many of them, drawn by the run's seed; all, where there are fewer."""


def rates(optimizer: Any) -> dict[int, float]:
    """The learning rate of the step, of each parameter by its id."""
    return {id(parameter): float(group["lr"]) for group in optimizer.param_groups for parameter in group["params"]}


def forget(optimizer: Any, parameter: Parameter) -> None:
    """What the optimizer remembers of it is gone, as if it were new."""
    _own(optimizer).state.pop(parameter, None)


def remembered(optimizer: Any) -> bool:
    """Whether the optimizer has something that it could forget, of any parameter."""
    return any(_own(optimizer).state.values())


def _own(optimizer: Any) -> Any:
    return getattr(optimizer, "optimizer", optimizer)
