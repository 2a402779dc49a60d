"""All transforms: one file (its config, and what it does to a row) and one line here for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import model_validator

from posttrain.data.transforms._chain import Transforms, built_transform
from posttrain.data.transforms._transform import TransformConfig
from posttrain.data.transforms.as_text import AsText
from posttrain.data.transforms.cloze import Cloze
from posttrain.data.transforms.control_token import ControlToken
from posttrain.data.transforms.corrupt import Corrupt
from posttrain.data.transforms.demonstrations import Demonstrations
from posttrain.data.transforms.denoise import Denoise
from posttrain.data.transforms.documents import Documents
from posttrain.data.transforms.feedback import Feedback
from posttrain.data.transforms.function import FunctionTransform, installed_transform
from posttrain.data.transforms.key_tokens import KeyTokens
from posttrain.data.transforms.mask_failed_calls import MaskFailedCalls
from posttrain.data.transforms.roles import Roles
from posttrain.data.transforms.source_tag import SourceTag
from posttrain.data.transforms.yes_no import YesNo
from posttrain.settings.data import DataConfig
from posttrain.settings.doors.kinds import Kind

__all__ = ["KIND", "TRANSFORMS", "AnyTransform", "TransformConfig", "TransformedData", "Transforms", "built_transform"]

TRANSFORMS: tuple[type[TransformConfig], ...] = (
    ControlToken,
    AsText,
    Denoise,
    SourceTag,
    Cloze,
    Demonstrations,
    Documents,
    YesNo,
    Feedback,
    Corrupt,
    Roles,
    MaskFailedCalls,
    KeyTokens,
)

KIND = Kind(
    "transform",
    group="posttrain.transforms",
    base=TransformConfig,
    members=(*TRANSFORMS, FunctionTransform),
    wrap=installed_transform,
)

if TYPE_CHECKING:
    AnyTransform = TransformConfig
else:
    AnyTransform = KIND.field


class TransformedData(DataConfig):
    """Where the rows come from, what is made of them, and how they become tokens."""

    transforms: list[AnyTransform] = []
    """What is done to the columns of rows, in this order: names of `posttrain list transforms`, with their options. Of rows
    that data.collect makes, once they are made."""

    @model_validator(mode="after")
    def _are_of_rows_that_are_there(self) -> TransformedData:
        if self.streamed is not None and any("train" in one.sets for one in self.transforms):
            raise ValueError("transforms: rows of a source that streams are not transformed in this version: leave one out")
        return self
