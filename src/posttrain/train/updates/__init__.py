"""All update rules: one file and one line here for each, in which order they are applied is the recipe's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from posttrain.train.updates._update import LearningConfig, Update, UpdateConfig
from posttrain.train.updates.ema import EMA
from posttrain.train.updates.ewc import EWC
from posttrain.train.updates.inverse_norm import InverseNorm
from posttrain.train.updates.l2_sp import L2SP
from posttrain.train.updates.momentum_reset import MomentumReset
from posttrain.train.updates.new_embeddings import NewEmbeddings
from posttrain.train.updates.refactor import Refactor
from posttrain.train.updates.reptile import Reptile
from posttrain.train.updates.soft_mask import SoftMask

__all__ = ["UPDATES", "AnyUpdate", "LearningConfig", "Update", "UpdateConfig"]

UPDATES: tuple[type[UpdateConfig], ...] = (
    EMA,
    L2SP,
    EWC,
    SoftMask,
    Reptile,
    NewEmbeddings,
    InverseNorm,
    Refactor,
    MomentumReset,
)

if TYPE_CHECKING:
    AnyUpdate = UpdateConfig
else:
    AnyUpdate = Annotated[Union[UPDATES], Field(discriminator="name")]  # noqa: UP007  (made of a tuple)
