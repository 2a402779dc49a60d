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
from posttrain.estimator.batch import Batch, Origin, Question, Request
from posttrain.estimator.loss import LossOutput, policy_gradient_loss
from posttrain.estimator.needs import Needs
from posttrain.estimator.view import View, row_mean, row_sum

__all__ = [
    "Algorithm",
    "Batch",
    "Coefficient",
    "Estimator",
    "LossOutput",
    "Mask",
    "Metric",
    "Needs",
    "Origin",
    "Part",
    "Penalty",
    "Planner",
    "Question",
    "Request",
    "Select",
    "Term",
    "View",
    "Weights",
    "policy_gradient_loss",
    "row_mean",
    "row_sum",
]
