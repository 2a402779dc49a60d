"""An optimizer of yours: a function or class, by path, or brought by an installed package."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, Literal

from posttrain.settings.doors.door import Door, check_call, installed
from posttrain.train.optimizers._optimizer import OptimizerConfig, Trained

if TYPE_CHECKING:
    from torch.optim import Optimizer


class FunctionOptimizer(Door, OptimizerConfig):
    """A function or class of yours, by path: (params, **options) → torch.optim.Optimizer; needs --allow-code."""

    name: Literal["function"] = "function"

    def check(self) -> None:
        """Whether it can be called so.

        Raises:
            ValueError: it cannot.
        """
        check_call(self.path, self.load(), {"params": [], **self.options})

    def build(self, trained: Trained) -> Optimizer:
        """What it gives, which must hold every parameter that is trained, and no other."""
        from torch.optim import Optimizer

        function: Any = self.load()
        try:
            made = function(params=trained.groups, **self.options)
        except Exception as error:  # code of the user's may fail in any way
            raise ValueError(f"{self.path} raised {type(error).__name__}: {error}") from error
        if not isinstance(made, Optimizer):
            raise ValueError(f"{self.path} gave {type(made).__name__}, and a torch.optim.Optimizer is expected")
        own = {id(p) for group in trained.groups for p in group["params"]}
        if {id(p) for group in made.param_groups for p in group["params"]} != own:
            raise ValueError(f"{self.path} gave an optimizer of other parameters than those that are trained")
        return made


def installed_optimizer(point: EntryPoint, brought: Any) -> type[FunctionOptimizer]:
    """The config of what an installed package brings; its options stand under `options`."""
    if not callable(brought):
        raise ValueError(f"{point.value} is neither a config class with build nor a function of param groups")
    return installed(FunctionOptimizer, point.name, point.value)
