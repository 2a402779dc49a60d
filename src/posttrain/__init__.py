"""posttrain: post-training algorithms for language models, as variants of one policy-gradient estimator.

The public names stand in `__all__` and are imported when first used: `import posttrain` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posttrain.algorithms import build_algorithm
    from posttrain.errors import EngineError, RewardError
    from posttrain.estimator import (
        Algorithm,
        Estimator,
        LossOutput,
        Metric,
        Penalty,
        Term,
        policy_gradient_loss,
    )
    from posttrain.needs import Needs
    from posttrain.recipe import Recipe, load_recipe
    from posttrain.rewards.base import Group, Judgement, Reward, Weighted
    from posttrain.rewards.countdown import Countdown
    from posttrain.rewards.form import Boxed, Format, Pattern, Tags
    from posttrain.rewards.function import Function
    from posttrain.rewards.length import FormatAndLength, Length, Overlong
    from posttrain.rewards.majority import MajorityVote
    from posttrain.rewards.repetition import Repetition
    from posttrain.rewards.verified import Verified
    from posttrain.rollout.config import VLLMConfig
    from posttrain.rollout.engine import Completion, RolloutEngine, Sampling
    from posttrain.rollout.hf import HFEngine
    from posttrain.rollout.vllm import VLLMEngine
    from posttrain.runner import RunResult, run
    from posttrain.trainer import PostTrainer
    from posttrain.types import Batch, Origin, Question, Request, View

__version__ = "0.1.0"

_HOME = {
    "build_algorithm": "algorithms",
    "Algorithm": "estimator",
    "Estimator": "estimator",
    "LossOutput": "estimator",
    "Metric": "estimator",
    "Needs": "needs",
    "Penalty": "estimator",
    "Term": "estimator",
    "policy_gradient_loss": "estimator",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "Completion": "rollout.engine",
    "RolloutEngine": "rollout.engine",
    "Sampling": "rollout.engine",
    "HFEngine": "rollout.hf",
    "VLLMConfig": "rollout.config",
    "VLLMEngine": "rollout.vllm",
    "Group": "rewards.base",
    "Judgement": "rewards.base",
    "Reward": "rewards.base",
    "Boxed": "rewards.form",
    "Countdown": "rewards.countdown",
    "Format": "rewards.form",
    "FormatAndLength": "rewards.length",
    "Function": "rewards.function",
    "Length": "rewards.length",
    "MajorityVote": "rewards.majority",
    "Overlong": "rewards.length",
    "Pattern": "rewards.form",
    "Repetition": "rewards.repetition",
    "Tags": "rewards.form",
    "Verified": "rewards.verified",
    "Weighted": "rewards.base",
    "EngineError": "errors",
    "RewardError": "errors",
    "RunResult": "runner",
    "run": "runner",
    "PostTrainer": "trainer",
    "Batch": "types",
    "Origin": "types",
    "Question": "types",
    "Request": "types",
    "View": "types",
}

__all__ = [
    "Algorithm",
    "Batch",
    "Boxed",
    "Completion",
    "Countdown",
    "EngineError",
    "Estimator",
    "Format",
    "FormatAndLength",
    "Function",
    "Group",
    "HFEngine",
    "Judgement",
    "Length",
    "LossOutput",
    "MajorityVote",
    "Metric",
    "Needs",
    "Origin",
    "Overlong",
    "Pattern",
    "Penalty",
    "PostTrainer",
    "Question",
    "Recipe",
    "Repetition",
    "Request",
    "Reward",
    "RewardError",
    "RolloutEngine",
    "RunResult",
    "Sampling",
    "Tags",
    "Term",
    "VLLMConfig",
    "VLLMEngine",
    "Verified",
    "View",
    "Weighted",
    "build_algorithm",
    "load_recipe",
    "policy_gradient_loss",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'posttrain' has no attribute {name!r}")
    return getattr(importlib.import_module(f"posttrain.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
