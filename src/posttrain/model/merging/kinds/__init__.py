"""All ways to merge models: one file (config, formula, paper, and `build`) and one line here for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union, get_args

from pydantic import Field

from posttrain.model.merging.kinds._merge import Formula, MergeConfig, OverBase
from posttrain.model.merging.kinds.dare import Dare
from posttrain.model.merging.kinds.linear import Linear
from posttrain.model.merging.kinds.slerp import Slerp
from posttrain.model.merging.kinds.task_arithmetic import TaskArithmetic
from posttrain.model.merging.kinds.ties import Ties
from posttrain.model.merging.kinds.wise_ft import WiseFT

MERGES: tuple[type[MergeConfig], ...] = (Linear, WiseFT, Slerp, TaskArithmetic, Ties, Dare)
BY_NAME = {get_args(member.model_fields["method"].annotation)[0]: member for member in MERGES}
"""The same by their names."""

if TYPE_CHECKING:
    AnyMerge = MergeConfig
else:
    AnyMerge = Annotated[Union[MERGES], Field(discriminator="method")]  # noqa: UP007  (made of a tuple)

__all__ = ["BY_NAME", "MERGES", "AnyMerge", "Formula", "MergeConfig", "OverBase"]
