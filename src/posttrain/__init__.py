"""posttrain: post-training algorithms for language models, as variants of one policy-gradient estimator.

The public names stand in `__all__` and are imported when first used: `import posttrain` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posttrain.algorithms import build_algorithm
    from posttrain.errors import EngineError, RewardError
    from posttrain.estimator.algorithm import Algorithm, Estimator, Metric, Penalty, Term
    from posttrain.estimator.batch import Batch, Origin, Question, Request
    from posttrain.estimator.loss import LossOutput, policy_gradient_loss
    from posttrain.estimator.needs import Needs
    from posttrain.estimator.view import View
    from posttrain.execution.runner import RunResult, run
    from posttrain.recipe.recipe import Recipe, load_recipe
    from posttrain.rewards.base import Group, Judgement, Reward, Weighted
    from posttrain.rewards.kinds._form import Boxed, Pattern, Tags
    from posttrain.rewards.kinds._length import Length
    from posttrain.rewards.kinds._verified import Verified
    from posttrain.rewards.kinds.countdown import Countdown
    from posttrain.rewards.kinds.format import Format
    from posttrain.rewards.kinds.format_length import FormatAndLength
    from posttrain.rewards.kinds.function import Function
    from posttrain.rewards.kinds.majority_vote import MajorityVote
    from posttrain.rewards.kinds.overlong import Overlong
    from posttrain.rewards.kinds.repetition import Repetition
    from posttrain.rollout.engine import Completion, RolloutEngine, Sampling
    from posttrain.rollout.hf import HFEngine
    from posttrain.rollout.vllm.engine import VLLMEngine
    from posttrain.settings.rollout import VLLMConfig
    from posttrain.train.trainer import PostTrainer


__version__ = "0.1.0"

_HOME = {
    "build_algorithm": "algorithms",
    "Algorithm": "estimator.algorithm",
    "Estimator": "estimator.algorithm",
    "LossOutput": "estimator.loss",
    "Metric": "estimator.algorithm",
    "Needs": "estimator.needs",
    "Penalty": "estimator.algorithm",
    "Term": "estimator.algorithm",
    "policy_gradient_loss": "estimator.loss",
    "Recipe": "recipe.recipe",
    "load_recipe": "recipe.recipe",
    "Completion": "rollout.engine",
    "RolloutEngine": "rollout.engine",
    "Sampling": "rollout.engine",
    "HFEngine": "rollout.hf",
    "VLLMConfig": "settings.rollout",
    "VLLMEngine": "rollout.vllm.engine",
    "Group": "rewards.base",
    "Judgement": "rewards.base",
    "Reward": "rewards.base",
    "Boxed": "rewards.kinds._form",
    "Countdown": "rewards.kinds.countdown",
    "Format": "rewards.kinds.format",
    "FormatAndLength": "rewards.kinds.format_length",
    "Function": "rewards.kinds.function",
    "Length": "rewards.kinds._length",
    "MajorityVote": "rewards.kinds.majority_vote",
    "Overlong": "rewards.kinds.overlong",
    "Pattern": "rewards.kinds._form",
    "Repetition": "rewards.kinds.repetition",
    "Tags": "rewards.kinds._form",
    "Verified": "rewards.kinds._verified",
    "Weighted": "rewards.base",
    "EngineError": "errors",
    "RewardError": "errors",
    "RunResult": "execution.runner",
    "run": "execution.runner",
    "PostTrainer": "train.trainer",
    "Batch": "estimator.batch",
    "Origin": "estimator.batch",
    "Question": "estimator.batch",
    "Request": "estimator.batch",
    "View": "estimator.view",
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
