"""What a recipe says of its training loop."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from posttrain.settings.base import Config, Count, NonNegative, Positive
from posttrain.settings.data.sources import EnvironmentSource, Source
from posttrain.settings.doors.door import Door
from posttrain.settings.doors.kinds import name_of
from posttrain.settings.trainer.arguments import extra_fault
from posttrain.settings.trainer.optimizers import optimizer_fault
from posttrain.settings.training import Budget, HeadPath, ParameterRule, RowLayout, StopWhen
from posttrain.train.optimizers import AnyOptimizer
from posttrain.train.schedules import SCHEDULES, AnySchedule
from posttrain.train.updates import AnyUpdate, LearningConfig, UpdateConfig
from posttrain.train.updates.trainable import AnyTrainable

Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "warmup_stable_decay",
]

MOST_ROWS = 2**20  # of one optimizer step: more are a slip, and would be read for minutes before anything is said
MOST_TOKENS = 2**27  # alike
BETAS = (0.9, 0.999)  # AdamW's, where nothing is said of them
ROWS = 64  # of one optimizer step, where nothing is said of it


class TrainingConfig(Config):
    """The loop. `extra` passes anything else that transformers' TrainingArguments takes, by name."""

    max_steps: Count | None = None
    """Optimizer steps."""
    epochs: Positive | None = None
    """Passes over the data, where max_steps is not set; the last step takes what is left of them, and is smaller."""
    budget: Budget | None = None
    """Ends the run before max_steps, for comparisons of algorithms."""
    stop_when: StopWhen | None = None
    """Ends the run before max_steps, once a metric is where it should be, or where it should never be."""
    rows_per_step: Annotated[int, Field(ge=1, le=MOST_ROWS)] | None = None
    """Data set rows (a preference pair is one), or rollouts, of an optimizer step, over all processes; 64 where
    tokens_per_step is not set either. All rollouts of a collection if not set; a part of them makes several updates of each
    collection."""
    tokens_per_step: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    """In place of rows_per_step: an optimizer step takes the next rows, in their order, that have no more tokens together,
    prompts included; one that alone has more is a step of its own."""
    micro_batch_tokens: Count = 16384
    """Bound on the tokens that one forward pass reads, padding included; the gradient does not depend on it."""
    micro_batch_rows: Count | None = None
    """Bound on the rows of one forward pass; none if not set."""
    head: HeadPath = "one_pass"
    """How log-probs are made of the last hidden states; one_pass is for algorithms of token scope, others take two_pass."""
    layout: RowLayout = "shared"
    """How rows are laid out for a forward pass; shared and packed fall back to padded where the model cannot take them."""
    compile: bool = False
    """Layers by torch.compile, for packed rows in 16 bits on a GPU; tried at the start, and told where they are not."""
    learning_rate: NonNegative = 1e-5
    """The largest of the schedule."""
    lr_scheduler_type: Scheduler | None = None
    """One of transformers'; linear where no schedule is given either. Its options go to extra.lr_scheduler_kwargs."""
    schedule: AnySchedule | None = None
    """One of our own, or of yours, in place of lr_scheduler_type."""
    optimizer: AnyOptimizer | None = None
    """One by name, in place of extra.optim; AdamW if neither is given."""
    parameters: list[ParameterRule] = []
    """Rules for learning rates and weight decays of parameters by name or layer, each over those before it; a schedule scales
    all learning rates alike."""
    warmup_steps: NonNegative = 0
    """Below 1: a share of all steps."""
    weight_decay: NonNegative = 0.0
    """Of weights; norms and biases have none."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = BETAS[0]
    """AdamW's."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = BETAS[1]
    """AdamW's."""
    max_grad_norm: NonNegative = 1.0
    """Gradients of a larger norm are scaled down to it; 0: none are."""
    bf16: bool | None = None
    """Another name of model.compute: true is bfloat16, false float32."""
    trainable: AnyTrainable | None = None
    """Which of the model's parameters are trained, all of the time or in turns; all of them if not set."""
    update: list[AnyUpdate] = []
    """What happens to gradients before each step, and to weights after it, beside what the optimizer does; in this order."""
    gradient_checkpointing: bool | None = None
    """Layers are computed again in the backward pass, for memory; if not set, where an estimate says that it is needed."""
    save_every: Annotated[int, Field(ge=0)] | None = None
    """Steps between checkpoints; a tenth of the run if not set, 0 for none."""
    save_total_limit: Count | None = 2
    """Checkpoints that are kept, the last ones; all if null."""
    logging_steps: Count = 10
    """For the trackers of report_to; metrics.jsonl has every step."""
    report_to: list[Literal["wandb", "tensorboard", "trackio", "mlflow"]] = []
    """Trackers, besides metrics.jsonl."""
    extra: dict[str, Any] = {}
    """More of transformers' TrainingArguments, by name."""

    @model_validator(mode="before")
    @classmethod
    def _has_a_schedule(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("schedule") is None and values.get("lr_scheduler_type") is None:
            return {**values, "lr_scheduler_type": "linear"}
        return values

    @model_validator(mode="before")
    @classmethod
    def _has_a_step(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("rows_per_step") is None and values.get("tokens_per_step") is None:
            return {**values, "rows_per_step": ROWS}
        return values

    @model_validator(mode="after")
    def _has_steps_of_one_kind(self) -> TrainingConfig:
        if self.rows_per_step is not None and self.tokens_per_step is not None:
            raise ValueError("tokens_per_step: give it or rows_per_step, not both (null takes back what is said elsewhere)")
        return self

    @model_validator(mode="after")
    def _compiles_what_it_can(self) -> TrainingConfig:
        if self.compile and self.layout == "padded":
            raise ValueError("compile: layers are compiled for packed rows alone: leave layout out, or compile")
        return self

    @property
    def averages(self) -> str | None:
        """The optimizer's name, where it averages weights in place of a rate that decays."""
        theirs = str(self.extra.get("optim"))
        if self.optimizer is not None:
            return self.optimizer.name if self.optimizer.own_average else None
        return theirs if theirs.startswith("schedule_free") else None

    @property
    def kept(self) -> dict[str, Source]:
        """Where rows are from that are to be kept, by the rules that learn from them."""
        return {rule.name: rule.of for rule in self.update if isinstance(rule, LearningConfig) and rule.of is not None}

    @property
    def rows(self) -> int:
        """Of an optimizer step.

        Raises:
            ValueError: it is of tokens, and what asks knows of rows alone.
        """
        if self.rows_per_step is None:
            raise ValueError(
                "training.tokens_per_step: a step over rollouts is of whole groups, whose tokens nobody knows before they "
                "are sampled: set training.rows_per_step"
            )
        return self.rows_per_step

    @model_validator(mode="after")
    def _has_one_schedule(self) -> TrainingConfig:
        if self.schedule is not None and self.lr_scheduler_type is not None:
            raise ValueError("schedule: give it or lr_scheduler_type, not both (null takes back what is said elsewhere)")
        if self.schedule is not None and "lr_scheduler_kwargs" in self.extra:
            raise ValueError("extra: lr_scheduler_kwargs are of lr_scheduler_type; a schedule has options of its own")
        if self.schedule is not None and not isinstance(self.schedule, Door):  # whose code waits for --allow-code
            try:
                self.schedule.build_at(self.learning_rate)
            except ValueError as error:
                raise ValueError(f"schedule: {error}") from error
        return self

    @field_validator("update")
    @classmethod
    def _each_stands_once(cls, update: list[UpdateConfig]) -> list[UpdateConfig]:
        names = [one.name for one in update]
        if again := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"{again[0]} stands there {names.count(again[0])} times: each rule stands once")
        return update

    @field_validator("update")
    @classmethod
    def _have_rows_to_learn_from(cls, update: list[UpdateConfig]) -> list[UpdateConfig]:
        for rule in update:
            if isinstance(rule, LearningConfig) and rule.of is None:
                raise ValueError(f"{rule.name}: of: say where rows are from that are to be kept: of: {{path: earlier.jsonl}}")
            if isinstance(rule, LearningConfig) and getattr(rule.of, "stream", False):
                raise ValueError(f"{rule.name}: of: stream: only data.train streams: leave stream out")
            if isinstance(rule, LearningConfig) and isinstance(rule.of, EnvironmentSource):
                raise ValueError(
                    f"{rule.name}: of: tasks of an environment are no rows to learn from: give path, hub or task"
                )
        return update

    @model_validator(mode="after")
    def _has_an_end(self) -> TrainingConfig:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError("give either max_steps or epochs")
        return self

    @model_validator(mode="after")
    def _schedule_knows_the_end(self) -> TrainingConfig:
        if self.budget is None or (self.lr_scheduler_type or "").startswith("constant"):
            return self
        if self.schedule is None or not self.schedule.by_progress:
            able = ", ".join(name_of(one) for one in SCHEDULES if one.by_progress)
            raise ValueError(
                "budget: take lr_scheduler_type: constant or constant_with_warmup; others need the number of steps. So does "
                f"every schedule that does not read progress alone, as {able} do"
            )
        if self.warmup_steps >= 1:
            raise ValueError("warmup_steps: beside budget and a schedule it is a share of the budget, below 1")
        return self

    @model_validator(mode="after")
    def _micro_batches_fill_the_step(self) -> TrainingConfig:
        if self.micro_batch_rows is None or self.rows_per_step is None:
            return self
        if self.rows_per_step % min(self.micro_batch_rows, self.rows_per_step):
            raise ValueError(
                f"rows_per_step: {self.rows_per_step} is no multiple of micro_batch_rows: {self.micro_batch_rows}"
            )
        return self

    @model_validator(mode="after")
    def _has_one_optimizer(self) -> TrainingConfig:
        named = "optimizer" if self.optimizer is not None else "parameters" if self.parameters else None
        if named and (theirs := [key for key in ("optim", "optim_args", "optim_target_modules") if key in self.extra]):
            raise ValueError(f"{named}: give it or extra.{theirs[0]}, not both (optimizer takes the place of extra.optim)")
        if self.optimizer is None or self.optimizer.reads_betas:
            return self
        unread = "adam_epsilon" in self.extra or (self.adam_beta1, self.adam_beta2) != BETAS
        if unread:
            raise ValueError(f"optimizer: {self.optimizer.name} reads no adam_beta1, adam_beta2 or extra.adam_epsilon")
        return self

    @model_validator(mode="after")
    def _averages_in_place_of_decay(self) -> TrainingConfig:
        name = self.averages
        if name is not None and not (self.lr_scheduler_type or "").startswith("constant"):
            raise ValueError(
                f"lr_scheduler_type: {name} averages weights in place of a rate that decays: take constant, or "
                "constant_with_warmup"
            )
        return self

    @field_validator("extra")
    @classmethod
    def _are_training_arguments(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name in extra:
            if (fault := extra_fault(name)) is not None:
                raise ValueError(fault)
        if (fault := optimizer_fault(extra)) is not None:
            raise ValueError(fault)
        return extra


def check_optimizer(training: TrainingConfig, mode: str, *, samples: bool) -> None:
    """Whether it can have its parameters as a distributed.mode spreads them, and train on rollouts where there are some.

    Raises:
        ValueError: it cannot.
    """
    if training.optimizer is not None and training.optimizer.whole_matrices and mode != "ddp":
        raise ValueError(
            f"training.optimizer: {training.optimizer.name} needs whole matrices in each process, and mode {mode} spreads "
            "them or what is kept for them: take mode ddp, or adamw"
        )
    averages = training.averages
    key = "training.optimizer" if training.optimizer is not None else "training.extra.optim"
    if averages is not None and mode != "ddp":
        raise ValueError(
            f"{key}: {averages} goes between the weights that it trains and their average in place, of which mode {mode} "
            "spreads parts: take mode ddp, or adamw"
        )
    if samples and averages is not None:
        raise ValueError(
            f"{key}: {averages} makes its steps from other weights than those that sample, and that log-probs "
            "are compared with: rollouts take another optimizer"
        )
