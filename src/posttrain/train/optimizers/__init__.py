"""All optimizers by name: one file and one line here for each. transformers' others are `extra.optim`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posttrain.errors import RecipeError
from posttrain.settings.doors.kinds import Kind
from posttrain.train.optimizers._optimizer import OptimizerConfig, Trained
from posttrain.train.optimizers.adafactor import Adafactor
from posttrain.train.optimizers.adamw import AdamW
from posttrain.train.optimizers.adamw_8bit import AdamW8bit
from posttrain.train.optimizers.adopt import ADOPT
from posttrain.train.optimizers.function import FunctionOptimizer, installed_optimizer
from posttrain.train.optimizers.muon import Muon
from posttrain.train.optimizers.schedule_free import ScheduleFree
from posttrain.train.optimizers.sgd import SGD

OPTIMIZERS: tuple[type[OptimizerConfig], ...] = (AdamW, AdamW8bit, ADOPT, Muon, ScheduleFree, Adafactor, SGD)

KIND = Kind(
    "optimizer",
    group="posttrain.optimizers",
    base=OptimizerConfig,
    members=(*OPTIMIZERS, FunctionOptimizer),
    wrap=installed_optimizer,
)

if TYPE_CHECKING:
    from torch.optim import Optimizer

    AnyOptimizer = OptimizerConfig
else:
    AnyOptimizer = KIND.field


def built_optimizer(config: OptimizerConfig, trained: Trained) -> Optimizer:
    """The optimizer that a config describes.

    Raises:
        RecipeError: it cannot be built.
    """
    try:
        return config.build(trained)
    except ValueError as error:
        raise RecipeError(f"training.optimizer: {error}") from error
