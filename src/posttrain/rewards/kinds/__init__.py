"""All rewards: one file (its config, and what it does) and one line here for each."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

from posttrain.rewards.kinds.class_ import ClassReward
from posttrain.rewards.kinds.countdown import CountdownReward
from posttrain.rewards.kinds.exact_match import ExactMatchReward
from posttrain.rewards.kinds.format import FormatReward
from posttrain.rewards.kinds.format_length import FormatLengthReward
from posttrain.rewards.kinds.function import FunctionReward
from posttrain.rewards.kinds.length import LengthReward
from posttrain.rewards.kinds.majority_vote import MajorityVoteReward
from posttrain.rewards.kinds.math_verify import MathVerifyReward
from posttrain.rewards.kinds.overlong import OverlongReward
from posttrain.rewards.kinds.repetition import RepetitionReward
from posttrain.rewards.kinds.task import TaskReward
from posttrain.rewards.kinds.tool_call import ToolCallReward
from posttrain.rewards.kinds.unit_tests import UnitTestsReward
from posttrain.rewards.options import RewardConfig
from posttrain.settings.doors.door import installed
from posttrain.settings.doors.kinds import Kind

REWARDS: tuple[type[RewardConfig], ...] = (
    MathVerifyReward,
    ExactMatchReward,
    TaskReward,
    CountdownReward,
    UnitTestsReward,
    ToolCallReward,
    MajorityVoteReward,
    FormatReward,
    LengthReward,
    FormatLengthReward,
    OverlongReward,
    RepetitionReward,
    FunctionReward,
    ClassReward,
)


def _installed_reward(point: EntryPoint, brought: Any) -> type[RewardConfig]:
    """The config of a class or a function that an installed package brings; its options stand under `options`."""
    if not callable(brought):
        raise ValueError(f"{point.value} is neither a config class with build, nor a class with judge(group), nor a function")
    return installed(ClassReward if isinstance(brought, type) else FunctionReward, point.name, point.value)


KIND = Kind("reward", group="posttrain.rewards", base=RewardConfig, members=REWARDS, wrap=_installed_reward)

if TYPE_CHECKING:
    AnyReward = RewardConfig
else:
    AnyReward = KIND.field
