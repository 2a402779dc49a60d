"""A recipe → everything that its training needs, loaded and checked, with nothing written yet."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
import transformers
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from posttrain.algorithms import built
from posttrain.data.encoding.teacher import asked_by
from posttrain.distributed import ranks
from posttrain.errors import SetupError
from posttrain.estimator import Algorithm
from posttrain.execution.memory.footprint import Footprint, footprint
from posttrain.execution.numbers import described, has_own_masters
from posttrain.execution.prepare.collect.asking import observed, steps_told
from posttrain.execution.prepare.collect.checks import check_collected, check_writers
from posttrain.execution.prepare.data import Sets, read_sets
from posttrain.execution.prepare.growing import grown
from posttrain.execution.prepare.growing import told as lengths_told
from posttrain.execution.prepare.mixture import mean_tokens, mixed_of, told
from posttrain.execution.prepare.order import fed, rule_of, tell_long, told_of
from posttrain.execution.prepare.over_steps import check_stored, over_steps, played
from posttrain.execution.prepare.teachers import check_asked, context_for, identities, loaded, made_teachers, teachers_told
from posttrain.model.adapters.rounded import weight_count
from posttrain.model.load import context_of, load, outline
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.model.proofs.identity import identity
from posttrain.model.proofs.tokens import round_trip_fault
from posttrain.recipe import Recipe
from posttrain.recipe.code import check_permitted, fingerprints, jails
from posttrain.recipe.packages import check_packages
from posttrain.rewards.base import Weighted
from posttrain.rewards.make import Graders, make_rewards
from posttrain.rewards.options import Judged
from posttrain.rollout.make import sampling_of
from posttrain.rollout.vllm.backend import check_usable
from posttrain.settings.data.order import GrowingOrder
from posttrain.settings.doors.permissions import Permissions
from posttrain.telling import tell
from posttrain.train.collect.episodes.credit import credited
from posttrain.train.collect.make import check_sampling
from posttrain.train.collect.order import Mixed, Order, Rule, examples_of_epochs, order_of
from posttrain.train.given.teachers import known_to
from posttrain.train.updates._chosen import freeze
from posttrain.train.updates._chosen import told as moves_told


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs, loaded, started and checked; nothing has been written yet."""

    recipe: Recipe
    algorithm: Algorithm
    model: Any
    tokenizer: Any
    sets: Sets
    rewards: list[Weighted]
    graders: Graders
    collected: dict[str, float] = field(default_factory=dict[str, float])
    """Metrics of what was sampled before training, where the recipe says so."""
    teachers: dict[str, Any] = field(default_factory=dict[str, Any])
    """The frozen models that it learns from, by name."""
    mixed: Mixed | None = None
    """How the rows of its sources follow one another, where it has several."""
    rule: Rule | None = None
    """How the rows of its source do in each pass, where that is not at random."""

    def close(self) -> None:
        """Ends the rewards and graders."""
        for entry in self.rewards:
            entry.reward.close()
        self.graders.close()

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.recipe.training.max_steps or self.order.steps(self._end or 0)

    @property
    def read(self) -> int:
        """Rows, or questions, of the whole run: those of its epochs, or of its steps, which are all whole."""
        return self._end or self.order.read(self.steps)

    @property
    def _end(self) -> int | None:
        """The same, where there are epochs."""
        epochs = self.recipe.training.epochs
        return None if epochs is None else examples_of_epochs(epochs, len(self.sets.train))

    @cached_property
    def order(self) -> Order:
        """Which rows, or questions, each step takes."""
        training, rows, lengths = self.recipe.training, self.sets.train, None
        per_step = training.tokens_per_step
        if per_step is None:
            per_step = training.rows // self._per_question
        else:
            lengths = [row.tokens for row in rows]
        return order_of(len(rows), per_step, self.recipe.seed, self._end, self.mixed, self.rule, lengths=lengths)

    @property
    def _per_question(self) -> int:
        return self.algorithm.needs.rollouts or 1

    def with_sets(self, sets: Sets) -> Prepared:
        """The same with these, its sources mixed.

        Raises:
            DataError: one of them is empty, or ends.
        """
        data, training = self.recipe.data, self.recipe.training
        if isinstance(data.order, GrowingOrder):
            assert data.window.length is not None and training.epochs is not None  # asked for by the recipe
            rows, mixed = grown(sets.train, data.order.lengths(data.window.length), training.epochs, self.recipe.seed)
            return replace(self, sets=replace(sets, train=rows), mixed=mixed)
        rows = 0 if training.tokens_per_step is not None else (training.max_steps or 0) * training.rows
        run = replace(self, sets=sets)._end or rows // self._per_question  # which steps of tokens do without (check_mixture)
        return replace(self, sets=sets, mixed=mixed_of(data, sets.train, run), rule=rule_of(data.order, sets.train))

    @property
    def saved(self) -> dict[str, Any]:
        """How its model is saved, by the names of `save_model`."""
        return {"rows": self.sets.first_rows, "dtype": getattr(torch, self.recipe.model.dtype)}

    @property
    def longest(self) -> dict[str, int]:
        """Tokens of the longest row, its answer whole, and of the longest prompt, as student or teacher read them."""
        before = max((step.max_tokens for step in self.recipe.data.steps), default=0)
        answer = self.recipe.rollout.max_tokens if self.recipe.rollout else before
        if self.recipe.environment is not None:
            whole = answer + observed(self.recipe)
            answer = min(whole, context_of(self.model) or whole)
        return self.sets.longest(answer, shown=answer if self.algorithm.needs.shows_right else 0)

    def footprint(self) -> Footprint:
        """What each process of the run takes of its memory, by the formulas."""
        return footprint(self.recipe, self.algorithm, self.model, teachers=loaded(self.teachers), **self.longest)

    def facts(self) -> dict[str, Any]:
        """What a run that goes on must share: a digest of each set of its data, and the start model. What is told if it
        changed: the state of its code, and its jails. And versions, to be read by a person.
        """
        versions = {name: version(name) for name in ("torch", "transformers", "posttrain")}
        model = ranks.broadcast(identity(self.model) if ranks.is_main() else None, "the start model")
        teachers = identities(self.teachers) if ranks.is_main() else {}
        teachers = ranks.broadcast(teachers, "the teachers")
        known = {"data": self.sets.digests, "model": model, "code": fingerprints(self.recipe), "versions": versions}
        return known | {name: value for name, value in (("teachers", teachers), ("jails", jails(self.recipe))) if value}

    def plan(self) -> dict[str, Any]:
        """What the run will do, for a reader."""
        grows = isinstance(self.recipe.data.order, GrowingOrder)
        needs, tokens, train = self.algorithm.needs, self.recipe.training.tokens_per_step, self.sets.train
        if tokens is not None:
            per_step: dict[str, Any] = fed(self.order, self.steps, tokens, mean_tokens(train, self.mixed, self.read))
        else:
            rows = self.recipe.training.rows
            last = (self.read - self.order.read(self.steps - 1)) * self._per_question
            what = "rollouts" if needs.rollouts else "rows"
            per_step = {f"{what} per step": rows, **({f"{what} of the last step": last} if last < rows else {})}
            if not needs.rollouts:
                first = "" if self.sets.stream is None else f", by the first {len(train)} rows"
                per_step[f"tokens per step{first}"] = round(mean_tokens(train, self.mixed, self.read) * rows)
        sampled: dict[str, Any] = {}
        if self.recipe.rollout is not None:
            sampled = {
                "engine": self.recipe.rollout.engine,
                "questions per collection": self.recipe.rollout.questions_per_step,
                "rollouts per question": needs.rollouts,
                **({"beside them": "a greedy answer, their baseline"} if needs.baseline == "greedy" else {}),
                **({"where none is right": "up to three rounds more, from its demonstration"} if needs.branches else {}),
                "steps per collection": needs.updates,
                "tokens of the longest prompt": self.sets.longest_question,
                "tokens of an answer, at most": self.recipe.rollout.max_tokens,
                **played(self.recipe.environment),
                **({"collections sampled ahead": ahead} if (ahead := self.recipe.rollout.ahead) else {}),
            }
        return {
            "algorithm": repr(self.algorithm),
            "parameters": weight_count(self.model),
            "trainable parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            **moves_told(self.model, self.recipe.training.trainable, self.recipe.training.update, self.recipe.seed),
            **teachers_told(self.recipe, self.teachers),
            **described(self.recipe),
            "questions" if needs.rollouts else "training rows": self.sets.size,
            **self.footprint().rows(),
            **self.sets.forms,
            "rows left out or cut": {
                name: dict(report.counters) for name, report in self.sets.reports.items() if report.counters
            },
            "evaluation rows": {name: len(rows) for name, rows in {**self.sets.problems, **self.sets.held_out}.items()},
            **self.sets.shared,
            **per_step,
            **sampled,
            **({"rows of demonstrations": len(self.sets.demonstrations)} if self.sets.demonstrations else {}),
            **({"questions sampled before training": len(self.sets.candidates)} if self.sets.candidates else {}),
            **steps_told(self.recipe),
            **over_steps(self.recipe, needs),
            "steps": self.steps,
            **(told(self.recipe.data, None if grows else self.mixed, len(train), self.read) if not self.sets.stream else {}),
            **told_of(self.recipe, train, self.rule),
            **(lengths_told(self.mixed, [one.tokens for one in train]) if grows and self.mixed is not None else {}),
            **({"for each step's anchor": "a forward more, of policy and start model"} if needs.anchor != "none" else {}),
            "dropout": "off: the algorithm compares log-probs" if needs.exact_logp else "as the model has it",
            "output": self.recipe.output_dir,
        }


def prepare(recipe: Recipe, permissions: Permissions) -> Prepared:
    """Loads the model and the data of a recipe, and starts its rewards. Writes nothing but rows that are too many for memory.

    Raises:
        RecipeError: the algorithm has no use for what the recipe gives it, or the recipe's code may not run.
        SetupError: the model, the tokenizer, a reward or the rollout engine cannot be used.
        DataError: the data cannot be used.
    """
    check_packages(recipe)
    algorithm = _checked(recipe, permissions)
    for sampling in (recipe.rollout, *recipe.data.steps):
        if sampling is not None and sampling.engine == "vllm":
            check_usable(sampling.vllm, allow_remote=permissions.remote_engine)
    if recipe.rollout is not None:
        check_sampling(algorithm, sampling_of(recipe.rollout, recipe.seed))
        check_stored(recipe, algorithm)
    with ExitStack() as started:
        rewards = _rewards(recipe, started)
        unset_hf_deepspeed_config()  # of the stage before: a model is loaded whole, and spread out when all of it is made
        model, tokenizer = load(recipe.model, seed=recipe.seed, masters=not has_own_masters(recipe))
        if recipe.training.trainable is not None:
            freeze(model, recipe.training.trainable, recipe.seed)
        teachers = made_teachers(recipe, algorithm.needs, tokenizer, permissions)
        [teacher] = teachers.values() or [model]
        check_writers(recipe, permissions)
        sets = read_sets(recipe, algorithm, model, tokenizer, rewards, asked_by(algorithm.needs, known_to(teacher)))
        if (fault := round_trip_fault(tokenizer, model.config, sets.first_rows)) is not None:
            cure = "Take a model whose tokenizer is of its kind."
            if recipe.model.from_scratch is not None:
                cure = "Take architecture: llama, or an alphabet of ASCII characters."
            raise SetupError(f"{recipe.model.label}: what is saved would have another tokenizer: {fault}. {cure}")
        started.pop_all()
    graders = Graders(recipe.rewards)
    prepared = Prepared(recipe, algorithm, model, tokenizer, sets, rewards, graders, teachers=teachers).with_sets(sets)
    tokens, per_question, step = recipe.training.tokens_per_step, algorithm.needs.rollouts or 1, prepared.order.read(1)
    if step > (once := len(prepared.sets.train)) and sets.stream is None:
        key = f"rows_per_step: {step * per_question}" if tokens is None else f"tokens_per_step: {step}"
        tell("rows-per-step", f"training.{key} rows of a step are more than the {once * per_question} that the data give.")
    if tokens is not None:
        tell_long(tokens, prepared.sets.train)
    return prepared


def looked_at(recipe: Recipe, permissions: Permissions) -> tuple[Sets, Any, list[int]]:
    """The sets of a recipe as `prepare` reads them, the tokenizer, and the ids that end an answer. No weights are
    loaded, and no engine is needed.

    Raises:
        PosttrainError: as for `prepare`.
    """
    algorithm = _checked(recipe, permissions)
    with ExitStack() as started:
        rewards = _rewards(recipe, started)
        described, tokenizer = outline(recipe.model, seed=recipe.seed)
        asked = asked_by(algorithm.needs, context_for(recipe, algorithm.needs, described))
        sets = read_sets(recipe, algorithm, described, tokenizer, rewards, asked)
        return sets, tokenizer, eos_ids(described, tokenizer)


def _checked(recipe: Recipe, permissions: Permissions) -> Algorithm:
    """The algorithm, after what can be checked of it before anything is loaded."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    check_permitted(recipe, permissions)
    algorithm = credited(built(recipe.algorithm), recipe.environment)
    recipe.check_built(algorithm)
    check_asked(recipe, algorithm.needs)
    learns = algorithm.learns_from_rewards
    unread = [reward.label for reward in recipe.rewards if reward.weight and not (learns and reward.verdict)]
    if unread and not (recipe.algorithm.reads_rewards and learns):
        what = "the verdict" if recipe.algorithm.reads_verdict else "what else it is shown, and no reward"
        tell("rewards-unread", f"rewards: {algorithm.name} learns from {what} alone; {', '.join(unread)} is watched only.")
    check_collected(recipe, algorithm)
    return algorithm


def _rewards(recipe: Recipe, started: ExitStack) -> list[Weighted]:
    """Of training, which end with `started`."""
    if recipe.rollout is None:
        return []
    rewards = make_rewards(recipe.rewards, Judged(recipe.data.judged, recipe.rollout.max_tokens))
    for entry in rewards:
        started.callback(entry.reward.close)
    return rewards
