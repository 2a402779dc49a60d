"""All rules of what is trained: one file and one line here for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from posttrain.train.updates.trainable._trainable import TrainableConfig
from posttrain.train.updates.trainable.blocks import Blocks
from posttrain.train.updates.trainable.half import Half
from posttrain.train.updates.trainable.lisa import Lisa
from posttrain.train.updates.trainable.match import Match
from posttrain.train.updates.trainable.unfreeze import Unfreeze

__all__ = ["TRAINABLE", "AnyTrainable", "TrainableConfig"]

TRAINABLE: tuple[type[TrainableConfig], ...] = (Match, Half, Lisa, Blocks, Unfreeze)

if TYPE_CHECKING:
    AnyTrainable = TrainableConfig
else:
    AnyTrainable = Annotated[Union[TRAINABLE], Field(discriminator="rule")]  # noqa: UP007  (made of a tuple)
