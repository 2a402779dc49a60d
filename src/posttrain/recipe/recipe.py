"""The recipe: one flat YAML, checked whole before torch is imported; and what its parts mean."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from posttrain.algorithms import AlgorithmConfig
from posttrain.algorithms.options import Config, NonNegative, Positive, location
from posttrain.errors import RecipeError
from posttrain.recipe.resolve import with_rollout, with_stages
from posttrain.recipe.source import YamlSource
from posttrain.rewards.config import AnyReward, with_verdict
from posttrain.settings.budget import Budget
from posttrain.settings.data import DataConfig, TaskSource
from posttrain.settings.distributed import DistributedConfig
from posttrain.settings.model import ModelConfig
from posttrain.settings.rollout import VLLM_TEMPERATURE, RolloutConfig
from posttrain.settings.speed import HeadPath, RowLayout
from posttrain.settings.transformers_arguments import OURS, TRAINING_ARGUMENTS

NOT_BUILT = {
    "tools": "tools",
    "environments": "conversations of several turns with an environment",
    "images": "images",
    "critic": "critics",
}
"""Keys that people look for, or that are promised, and that this version refuses with a sentence."""

Count = Annotated[int, Field(ge=1)]


class TrainingConfig(Config):
    """The loop. `extra` passes anything else that transformers' TrainingArguments takes, by name."""

    max_steps: Count | None = None
    epochs: Positive | None = None
    """Passes over the data, where max_steps is not set."""
    budget: Budget | None = None
    """Ends the run before max_steps, for comparisons of algorithms."""
    rows_per_step: Count = 64
    """Data set rows (a preference pair is one), or rollouts, of an optimizer step, over all processes. All rollouts of a
    collection if not set; a part of them makes several updates of each collection."""
    micro_batch_tokens: Count = 16384
    """Bound on the tokens that one forward pass reads, padding included; the gradient does not depend on it."""
    micro_batch_rows: Count | None = None
    head: HeadPath = "one_pass"
    layout: RowLayout = "shared"
    learning_rate: NonNegative = 1e-5
    lr_scheduler_type: Literal[
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
    ] = "linear"
    """Options of a schedule go to extra.lr_scheduler_kwargs."""
    warmup_steps: NonNegative = 0
    """Below 1: a share of all steps."""
    weight_decay: NonNegative = 0.0
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    max_grad_norm: NonNegative = 1.0
    bf16: bool = False
    """Compute in bfloat16 over float32 weights."""
    gradient_checkpointing: bool | None = None
    """Layers are computed again in the backward pass, for memory; if not set, where an estimate says that it is needed."""
    save_every: Annotated[int, Field(ge=0)] | None = None
    """Steps between checkpoints; a tenth of the run if not set, 0 for none."""
    save_total_limit: Count | None = 2
    logging_steps: Count = 10
    """For the trackers of report_to; metrics.jsonl has every step."""
    report_to: list[Literal["wandb", "tensorboard", "trackio", "mlflow"]] = []
    extra: dict[str, Any] = {}

    @model_validator(mode="after")
    def _has_an_end(self) -> TrainingConfig:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError("give either max_steps or epochs")
        return self

    @model_validator(mode="after")
    def _schedule_knows_the_end(self) -> TrainingConfig:
        if self.budget is not None and not self.lr_scheduler_type.startswith("constant"):
            raise ValueError(
                "budget: take lr_scheduler_type: constant or constant_with_warmup; others need the number of steps"
            )
        return self

    @model_validator(mode="after")
    def _micro_batches_fill_the_step(self) -> TrainingConfig:
        if self.micro_batch_rows is not None and self.rows_per_step % min(self.micro_batch_rows, self.rows_per_step):
            raise ValueError(
                f"rows_per_step: {self.rows_per_step} is no multiple of micro_batch_rows: {self.micro_batch_rows}"
            )
        return self

    @field_validator("extra")
    @classmethod
    def _are_training_arguments(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name in extra:
            if name in OURS:
                raise ValueError(f"{name} is set by the recipe itself: {OURS[name]}")
            if name not in TRAINING_ARGUMENTS:
                near = difflib.get_close_matches(name, TRAINING_ARGUMENTS, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"{name} is no field of transformers.TrainingArguments{hint}")
        return extra


class EvalConfig(Config):
    """Validation: the loss on every set of data.eval, and sampled answers where `samples` is set."""

    every: Count | None = None
    """Steps between evaluations; there is one before the first step and one after the last in any case."""
    loss: bool = True
    samples: Annotated[int, Field(ge=0)] = 0
    """Answers sampled for each problem; 0: none."""
    k: list[Count] = []
    """pass@k, besides pass@1."""
    temperature: NonNegative = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Count = 256
    seed: int = 0
    limit: Count | None = None
    """Problems of each set that are sampled."""
    metric: str | None = None
    """<set>/<name>: the model with its best value is kept in best/. Lower is better for loss, nll and objectives."""

    @model_validator(mode="after")
    def _can_estimate(self) -> EvalConfig:
        if self.k and max(self.k) > self.samples:
            raise ValueError(f"pass@{max(self.k)} cannot be estimated from samples: {self.samples}")
        return self


class Recipe(Config):
    """Everything that a run depends on."""

    model: ModelConfig
    algorithm: AlgorithmConfig
    data: DataConfig
    rewards: list[AnyReward] = []
    """How answers are judged; a generated task brings its own verifier, and math_verify grades other evaluations."""
    rollout: RolloutConfig | None = None
    training: TrainingConfig
    eval: EvalConfig = EvalConfig()
    distributed: DistributedConfig = DistributedConfig()
    stages: list[Stage] = []
    """Recipes that run one after another, each from the model of the one before it; a stage gives what it changes."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    output_dir: Annotated[str, Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _resolved(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for key in NOT_BUILT:
            if key in values:
                raise ValueError(f"{key}: {NOT_BUILT[key]} is not part of this version; the README lists what is")
        return with_rollout(with_stages(values))

    @field_validator("rewards")
    @classmethod
    def _one_gives_the_verdict(cls, rewards: list[AnyReward]) -> list[AnyReward]:
        return with_verdict(rewards)

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.eval.metric is not None:
            name, _, quantity = self.eval.metric.partition("/")
            if name not in self.data.eval or not quantity:
                known = ", ".join(self.data.eval) or "none"
                raise ValueError(f"eval.metric: {self.eval.metric} is not <set>/<name> of a set in data.eval ({known})")
            if quantity.startswith(("pass@", "majority@", "length")) and not self.eval.samples:
                raise ValueError(f"eval.metric: {self.eval.metric} needs eval.samples")
        if self.model.adapter is None and self.model.dtype == "bfloat16" and self.training.bf16:
            raise ValueError("training.bf16: it computes in bfloat16 over float32 weights: set model.dtype: float32")
        names = [reward.label for reward in self.rewards]
        if len(set(names)) < len(names) or sum(reward.verdict for reward in self.rewards) > 1:
            raise ValueError("rewards: each may stand once, and one of them may have verdict: true")
        if any(reward.name == "task" for reward in self.rewards) and not isinstance(self.data.train, TaskSource):
            raise ValueError("rewards: task is the verifier of a generated task, and data.train is none")
        return self

    @model_validator(mode="after")
    def _rollouts_fit(self) -> Recipe:
        name, rollout = self.algorithm.name, self.rollout
        if (self.data.demonstrations is not None) != ("demonstrations" in type(self.algorithm).model_fields):
            wanted = "needs a set of its own" if self.data.demonstrations is None else "takes none beside its data"
            raise ValueError(f"data.demonstrations: {name} {wanted}")
        if "rollouts" not in type(self.algorithm).model_fields:
            if rollout is not None:
                raise ValueError(f"rollout: {name} trains on the data as they are; only evaluations sample, by eval.samples")
            return self
        if rollout is None:
            raise ValueError(f"algorithm.name: {name} trains on rollouts: add rollout: {{n: 8, max_tokens: …}}")
        if not self.rewards and not isinstance(self.data.train, TaskSource):
            raise ValueError(f"rewards: {name} learns from rewards: add [{{name: math_verify, verdict: true}}]")
        reads_verdict = getattr(self.algorithm, "reads_verdict", False)
        if self.rewards and not reads_verdict and not any(reward.weight for reward in self.rewards):
            raise ValueError("rewards: each has weight: 0, and nothing would be learnt")
        if self.rewards and reads_verdict and not any(reward.verdict for reward in self.rewards):
            raise ValueError(f"rewards: {name} asks which rollouts are right: mark a reward that can say so, verdict: true")
        if rollout.engine == "vllm" and self.eval.temperature > VLLM_TEMPERATURE:
            raise ValueError(f"eval.temperature: vLLM takes no more than {VLLM_TEMPERATURE:g}")
        per_step = self.training.rows_per_step
        if rollout.rows % per_step or per_step % rollout.n:
            raise ValueError(
                f"training.rows_per_step: {per_step} must divide the {rollout.rows} rollouts of a collection "
                f"(questions_per_step × n), and be a multiple of rollout.n: {rollout.n}, so that groups stay whole"
            )
        follows = {"rollouts": rollout.n, "updates": rollout.rows // per_step, "max_tokens": rollout.max_tokens}
        for field, value in follows.items():
            if getattr(self.algorithm, field, value) != value:
                raise ValueError(f"algorithm.{field}: it follows from rollout and training.rows_per_step, and is {value}")
        return self


class Stage(Recipe):
    """One of a recipe's stages, whole: the top level's values with its own over them."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    stages: list[Any] = Field([], max_length=0)


Recipe.model_rebuild()


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Reads, overrides and checks a recipe.

    Args:
        path: a YAML file.
        overrides: `key.path=value`, the value in YAML.

    Raises:
        RecipeError: with a line for each fault: the file and its line, the path in the YAML, and what to do.
    """
    source = YamlSource.read(Path(path))
    for override in overrides:
        source.override(override)
    return read_recipe(source)


def read_recipe(source: YamlSource) -> Recipe:
    """Checks the values of a recipe.

    Raises:
        RecipeError: as `load_recipe`.
    """
    try:
        return Recipe.model_validate(source.values)
    except ValidationError as error:
        faults = error.errors()
        in_stages = {location(fault)[2:] for fault in faults if fault["loc"][:1] == ("stages",)}
        told = [fault for fault in faults if location(fault) not in in_stages]  # the top level repeats the last stage
        raise RecipeError("\n".join(_fault(source, fault) for fault in told)) from None


def _fault(source: YamlSource, error: Any) -> str:
    where = source.path_of(location(error))
    message = re.sub(r"^Value error, ", "", error["msg"])
    if error["type"] == "missing":
        message = "is required"
    elif error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        message = f"keys are expected here, not {error['input']!r:.60}"
    elif error["type"] == "source" and isinstance(error["input"], dict):
        near = [key for key in error["input"] if difflib.get_close_matches(key, ("path", "hub", "task"), n=1)]
        message += f"; did you mean {difflib.get_close_matches(near[0], ('path', 'hub', 'task'))[0]}?" if near else ""
    elif error["type"] == "literal_error" and error["loc"][-1] == "[key]":
        known = re.findall(r"'([^']+)'", error["ctx"]["expected"])
        near = difflib.get_close_matches(str(error["input"]), known, n=1)
        message = f"unknown key; did you mean {near[0]}?" if near else f"unknown key; there are {', '.join(known)}"
    elif error["type"] == "union_tag_not_found":
        where, message = (*where, "name"), "is required"
    elif error["type"] == "union_tag_invalid":
        known = re.findall(r"'([^']+)'", error["ctx"]["expected_tags"])
        near = difflib.get_close_matches(error["ctx"]["tag"], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        where, message = (*where, "name"), f"{error['ctx']['tag']} is unknown; {hint}"
    elif error["type"] not in ("unknown_key", "value_error", "source"):
        message = f"{message[0].lower()}{message[1:]} (it is {error['input']!r:.80})"
    elif error["type"] == "value_error" and not where:
        match = re.match(r"([a-z0-9_]+(?:\.[a-z0-9_]+)*): (.*)", message, re.DOTALL)
        where, message = (tuple(match[1].split(".")), match[2]) if match else (where, message)
    return f"{source.place(where)}: {'.'.join(where) or 'recipe'}: {message}"
