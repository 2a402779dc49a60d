"""The recipe: one flat YAML, checked whole before torch is imported; and what its parts mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from posttrain.algorithms import AnyAlgorithm
from posttrain.data.transforms import TransformedData
from posttrain.environments.kinds import AnyEnvironment
from posttrain.errors import RecipeError
from posttrain.model.merging.kinds import AnyMerge
from posttrain.recipe.by_name import recipe_file
from posttrain.recipe.faults import sentences
from posttrain.recipe.fits.episodes import check_environment, check_played
from posttrain.recipe.fits.mixtures import check_mixture
from posttrain.recipe.fits.moves import check_moves
from posttrain.recipe.fits.teachers import check_served
from posttrain.recipe.resolve.over import is_in_vain
from posttrain.recipe.resolve.resolved import resolved
from posttrain.recipe.resolve.rounds import Rounds
from posttrain.recipe.source import YamlSource
from posttrain.recipe.training import TrainingConfig, check_optimizer
from posttrain.recipe.traits import Traits
from posttrain.rewards.kinds import AnyReward
from posttrain.rewards.make import with_verdict
from posttrain.settings.base import Config, Count
from posttrain.settings.data import Generated
from posttrain.settings.data.writers import check_teachers, learnt_from
from posttrain.settings.distributed import DistributedConfig
from posttrain.settings.evaluation import EvalConfig
from posttrain.settings.model import ModelConfig
from posttrain.settings.rollout import VLLM_TEMPERATURE, RolloutConfig

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm

LONGEST_NAME = 200  # bytes of a folder, so that what is put beside it has room


class Recipe(Config):
    """Everything that a run depends on."""

    model: ModelConfig
    """What is trained."""
    algorithm: AnyAlgorithm
    """By what it is trained: a name of `posttrain list algorithms`, and its options."""
    data: TransformedData
    """What it is trained and evaluated on."""
    rewards: list[AnyReward] = []
    """How answers are judged; a generated task brings its own verifier, and math_verify grades other evaluations."""
    environment: AnyEnvironment | None = None
    """What answers the policy back, where rollouts are conversations of several turns, with tools or without."""
    rollout: RolloutConfig | None = None
    """How completions are sampled, for algorithms that train on them."""
    training: TrainingConfig
    """The loop: steps, batches, learning rate, checkpoints."""
    eval: EvalConfig = EvalConfig()
    """Validation: how often, by what, on the sets of data.eval."""
    distributed: DistributedConfig = DistributedConfig()
    """Over how many processes it is spread, and how."""
    stages: list[Stage] = []
    """Recipes that run one after another, each from the model of the one before it; a stage gives what it changes."""
    rounds: Rounds | None = None
    """How often the stages are repeated, or the whole recipe where it has none."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of everything that is drawn by chance."""
    output_dir: Annotated[str, Field(min_length=1)]
    """The run's folder."""

    @model_validator(mode="before")
    @classmethod
    def _resolved(cls, values: Any) -> Any:
        return resolved(values) if isinstance(values, dict) else values

    @field_validator("output_dir")
    @classmethod
    def _is_at_home(cls, folder: str) -> str:
        return os.path.expanduser(folder)

    @field_validator("output_dir")
    @classmethod
    def _can_be_made(cls, folder: str) -> str:
        if "\0" in folder or max(len(os.fsencode(part)) for part in Path(folder).parts or [""]) > LONGEST_NAME:
            raise ValueError(f"a folder's name has at most {LONGEST_NAME} bytes, and no character of code 0")
        return folder

    @field_validator("rewards")
    @classmethod
    def _one_gives_the_verdict(cls, rewards: list[AnyReward]) -> list[AnyReward]:
        return with_verdict(rewards)

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.eval.metric is not None:
            self._check_evaluated("eval.metric", self.eval.metric)
        if (stop := self.training.stop_when) is not None and stop.metric.startswith("eval/"):
            self._check_evaluated("training.stop_when.metric", stop.metric.removeprefix("eval/"))
        names = [reward.label for reward in self.rewards]
        if len(set(names)) < len(names) or sum(reward.verdict for reward in self.rewards) > 1:
            raise ValueError("rewards: each may stand once, and one of them may have verdict: true")
        check_environment(self.environment, self.algorithm, self.data, self.rollout, self.eval)
        check_mixture(self.data, [reward.name for reward in self.rewards], self.training)
        return self

    @model_validator(mode="after")
    def _can_follow(self) -> Recipe:
        check_moves(self.model, self.training, self.distributed)
        check_optimizer(self.training, self.distributed.mode, samples=self.rollout is not None)
        return self

    def _check_evaluated(self, key: str, metric: str) -> None:
        """Whether evaluations can have a metric, <set>/<name>."""
        name, _, quantity = metric.partition("/")
        if name not in self.data.evaluated or not quantity:
            known = ", ".join(self.data.evaluated) or "none"
            raise ValueError(f"{key}: {metric} is not <set>/<name> of a set in data.eval ({known})")
        if quantity.startswith(("pass@", "majority@", "length")) and not self.eval.samples:
            raise ValueError(f"{key}: {metric} needs eval.samples")

    @model_validator(mode="after")
    def _algorithm_fits(self) -> Recipe:
        if self.algorithm.trains_on is not None:
            self.check_fit(Traits.of_config(self.algorithm))
        return self

    def check_fit(self, traits: Traits) -> None:
        """Refuses what lacks what the algorithm needs, or has what it has no use for.

        Raises:
            ValueError: the key, and what to do.
        """
        name, rollout = self.algorithm.label, self.rollout
        if (self.data.demonstrations is not None) != traits.takes_demonstrations:
            wanted = "needs a set of its own" if self.data.demonstrations is None else "takes none beside its data"
            raise ValueError(f"data.demonstrations: {name} {wanted}")
        check_teachers(name, self.model.teachers, self.data, learns=traits.has_teacher, of_stages=bool(self.stages))
        if not traits.rollouts:
            if rollout is not None:
                pairs = ", and pairs by rollout.pairs" * ("pairs" in type(self.algorithm).model_fields)
                raise ValueError(
                    f"rollout: {name} trains on the data as they are; only evaluations sample, by eval.samples{pairs}"
                )
            return
        if rollout is None:
            raise ValueError(f"algorithm.name: {name} trains on rollouts: add rollout: {{n: 8, max_tokens: …}}")
        self._check_rewards(traits)
        self._check_sampling(traits, rollout)
        self._check_rows(rollout)

    def _check_rewards(self, traits: Traits) -> None:
        name = self.algorithm.label
        judges = self.rewards or self.environment or isinstance(self.data.judged, Generated)
        if traits.learns_from_rewards and not judges:
            raise ValueError(f"rewards: {name} learns from rewards: add [{{name: math_verify, verdict: true}}]")
        reads = traits.reads_verdict or not traits.learns_from_rewards
        if self.rewards and not reads and not any(reward.weight for reward in self.rewards):
            raise ValueError("rewards: each has weight: 0, and nothing would be learnt")
        verdict = any(reward.verdict for reward in self.rewards) or (self.environment and self.environment.says_right)
        if self.rewards and traits.reads_verdict and not verdict:
            raise ValueError(f"rewards: {name} asks which rollouts are right: mark a reward that can say so, verdict: true")
        weights, names = getattr(self.algorithm, "reward_weights", None), {reward.label for reward in self.rewards}
        if weights is not None and names and weights.keys() != names:
            raise ValueError(
                f"algorithm.reward_weights: they are of {', '.join(weights)}, and the rewards are {', '.join(sorted(names))}"
            )

    def _check_sampling(self, traits: Traits, rollout: RolloutConfig) -> None:
        name = self.algorithm.label
        if rollout.hf.batching == "continuous" and self.distributed.shares_parameters and self.distributed.processes > 1:
            raise ValueError(
                f"rollout.hf.batching: continuous needs the whole model in each process, and mode {self.distributed.mode} "
                "spreads it: take batching: loop, or engine: vllm"
            )
        if rollout.mask_cut_off and traits.measures_tokens:
            raise ValueError(
                f"rollout.mask_cut_off: {name} makes its credit of all tokens together, and those of answers that are "
                "cut off would be among them: leave it false, or take the reward overlong"
            )
        if rollout.pairs is not None and not hasattr(self.algorithm, "pairs"):
            raise ValueError(f"rollout.pairs: {name} is no loss of preference pairs")
        if rollout.ahead and rollout.pairs is not None:
            raise ValueError(f"rollout.ahead: {name} has no correction for pairs that older weights have sampled: leave it 0")
        if rollout.ahead and not traits.corrected:
            raise ValueError(
                f"rollout.ahead: {rollout.ahead} trains on what older weights have sampled, and {name} has no correction for "
                "it: set algorithm.correction: {level: token, form: truncate, cap: 2.0}"
            )
        if traits.adds_steps and (rollout.ahead or self.training.epochs is not None):
            key = "rollout.ahead" if rollout.ahead else "training.epochs"
            raise ValueError(
                f"{key}: {name} adds an optimizer step whenever its buffer is full, and nobody knows beforehand when: "
                f"{'leave it 0' if rollout.ahead else 'set training.max_steps'}, or set algorithm.sft_step: same"
            )
        if self.data.order is not None and traits.replaces_groups and rollout.resamples:
            raise ValueError(
                f"data.order: {name} replaces groups that nothing is learnt from by questions in random order: set "
                "rollout.resamples: 0, or leave order out"
            )
        if rollout.engine == "vllm" and self.eval.temperature > VLLM_TEMPERATURE:
            raise ValueError(f"eval.temperature: vLLM takes no more than {VLLM_TEMPERATURE:g}")

    def _check_rows(self, rollout: RolloutConfig) -> None:
        per_step = self.training.rows
        if rollout.rows % per_step or per_step % rollout.n:
            raise ValueError(
                f"training.rows_per_step: {per_step} must divide the {rollout.rows} rollouts of a collection "
                f"(questions_per_step × n), and be a multiple of rollout.n: {rollout.n}, so that groups stay whole"
            )
        follows = {"rollouts": rollout.n, "updates": rollout.rows // per_step, "max_tokens": rollout.max_tokens}
        for field, value in {**follows, "pairs": rollout.pairs}.items():
            if getattr(self.algorithm, field, value) != value:
                raise ValueError(f"algorithm.{field}: it follows from rollout and training.rows_per_step, and is {value}")

    def check_built(self, algorithm: Algorithm) -> None:
        """The same by the needs of the built algorithm, which must ask for as many rollouts and updates as the recipe makes.

        Raises:
            RecipeError: the key, and what to do.
        """
        try:
            self.check_fit(Traits.of_value(algorithm))
            check_played(self.environment, self.algorithm.label, algorithm.needs)
        except ValueError as error:
            raise RecipeError(str(error)) from error
        if self.model.reference.refresh and not algorithm.needs.reference:
            raise RecipeError(f"model.reference: {self.algorithm.label} compares with no start model that could be moved")
        for name, teacher in learnt_from(self.model.teachers, self.data, learns=algorithm.needs.given_teacher).items():
            if (teacher.template or "") != algorithm.needs.teacher_template:
                raise RecipeError(
                    f"model.teachers.{name}.template: what the teacher is asked stands here, and "
                    f"{self.algorithm.label} has it asked {algorithm.needs.teacher_template or 'the prompt'!r}: leave "
                    "algorithm.teacher_template out; a function takes the parameter teacher_template, which the recipe fills"
                )
            if teacher.url is not None:
                check_served(f"model.teachers.{name}.url", self.algorithm.label, algorithm.needs, self.rollout)
        if self.rollout is None:
            return
        given = {"rollouts": self.rollout.n, "updates": self.rollout.rows // self.training.rows}
        for name, number in given.items():
            if (asked := getattr(algorithm.needs, name)) != number:
                raise RecipeError(
                    f"algorithm: {self.algorithm.label} asks for {asked} {name} (Needs.{name}), and the recipe makes "
                    f"{number}: let it take the parameter {name}, which the recipe fills"
                )


class Stage(Recipe):
    """One of a recipe's stages, whole: the top level's values with its own over them."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    """By which its results are told; the algorithm's if not set."""
    origin: Annotated[str, Field(alias="from")] = "previous"
    """What it starts from: previous, the model of the stage before it; base, the top level's; or that of an earlier stage."""
    merge: AnyMerge | None = None
    """Models that become one, in place of training: by a method of `posttrain list merges`. What it makes is evaluated."""
    round: Count | None = None
    """Which of the rounds it is of; filled in."""
    stages: list[Any] = Field([], max_length=0)
    """A stage has none of its own."""
    rounds: None = None
    """They are of all stages together."""


Recipe.model_rebuild()


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Reads, overrides and checks a recipe.

    Args:
        path: a YAML file; or the name of one in the folder recipes/ here, or of one that travels with the package.
        overrides: `key.path=value`, the value in YAML.

    Raises:
        RecipeError: with a line for each fault: the file and its line, the path in the YAML, and what to do.
    """
    source = YamlSource.read(recipe_file(path))
    for override in overrides:
        source.override(override)
    return read_recipe(source)


def read_recipe(source: YamlSource) -> Recipe:
    """Checks the values of a recipe.

    Raises:
        RecipeError: as `load_recipe`.
    """
    for keys, assignment in source.overridden.items():
        if is_in_vain(source.values, keys):
            name = ".".join(keys)
            raise RecipeError(f"--set {assignment}: every stage has a {name} of its own: set stages.0.{name}, and so on.")
    try:
        return Recipe.model_validate(source.values, context={"folder": source.folder})
    except ValidationError as error:
        raise RecipeError("\n".join(sentences(source, error.errors()))) from None
