"""What a trainer can be told besides its model, algorithm and data, in two groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.settings.distributed import DistributedConfig
from posttrain.settings.model import MovingReference
from posttrain.settings.training import Budget, HeadPath, ParameterRule, RowLayout, StopWhen
from posttrain.train.optimizers._optimizer import OptimizerConfig
from posttrain.train.schedules._schedule import Factor
from posttrain.train.updates import UpdateConfig
from posttrain.train.updates.trainable import TrainableConfig
from posttrain.train.watch.nonfinite import LIMIT
from posttrain.train.watch.records import Listener


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How steps are made. Nothing here but budget, stop_when, schedule, optimizer, parameters, reference, trainable and
    update changes what is trained.

    micro_batch_tokens: a bound on the tokens of a micro-batch that the model reads, padding included, beside the rows that
        args names.
    head, layout: how the same numbers are made; what the model cannot take is not taken, and said.
    compile: layers by torch.compile, where that is right on this device; else it is said.
    distributed: how the model is spread over the ranks; the modes of DeepSpeed need args.deepspeed as well. What is in effect
        must be what it says.
    budget: ends the run before max_steps, and is what progress is measured by.
    stop_when: ends the run before max_steps by a metric.
    schedule: of the learning rate, in place of args.lr_scheduler_type; with a budget, its step is the share that is spent, of
        args.max_steps.
    optimizer: in place of args.optim; learning rate, weight decay, betas and epsilon are those of args.
    parameters: rules for learning rates and weight decays of parameters by name; the optimizer is AdamW if none is told.
    reference: how the model that log-probs are compared with follows the policy; it stays the start model if not told.
    trainable: which parameters are trained, all of the time or in turns; all of them if not told.
    update: what happens to gradients and weights beside the optimizer's step, in this order.
    update_rows: for each rule of it that learns from rows, by its name, prepared `Example`s or a data set.
    nonfinite_limit: steps in a row that are left out, since something in them is not finite, before the run ends.
    """

    micro_batch_tokens: int | None = None
    head: HeadPath = "one_pass"
    layout: RowLayout = "shared"
    compile: bool = False
    distributed: DistributedConfig | None = None
    budget: Budget | None = None
    stop_when: StopWhen | None = None
    schedule: Factor | None = None
    optimizer: OptimizerConfig | None = None
    parameters: Sequence[ParameterRule] = ()
    reference: MovingReference | None = None
    trainable: TrainableConfig | None = None
    update: Sequence[UpdateConfig] = ()
    update_rows: Mapping[str, Any] = field(default_factory=dict[str, Any])
    nonfinite_limit: int = LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """What is measured and told while a model trains.

    listeners: besides the files in args.output_dir.
    sample_evaluation: step → metrics of sampled answers, called at each evaluation.
    evaluate_first: there is an evaluation before the first step.
    start_metrics: written with the first step.
    """

    listeners: Sequence[Listener] = ()
    sample_evaluation: Callable[[int], dict[str, float]] | None = None
    evaluate_first: bool = False
    start_metrics: Mapping[str, float] = field(default_factory=dict[str, float])
