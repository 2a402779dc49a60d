"""The theory: one estimator that every algorithm is a row of. It knows no vocabulary, model, file, config or process."""

from posttrain.estimator.algorithm import (
    Algorithm,
    Coefficient,
    Estimator,
    Mask,
    Metric,
    Part,
    Penalty,
    Planner,
    Select,
    Term,
    Weights,
)
from posttrain.estimator.loss import LossOutput, policy_gradient_loss

__all__ = [
    "Algorithm",
    "Coefficient",
    "Estimator",
    "LossOutput",
    "Mask",
    "Metric",
    "Part",
    "Penalty",
    "Planner",
    "Select",
    "Term",
    "Weights",
    "policy_gradient_loss",
]
