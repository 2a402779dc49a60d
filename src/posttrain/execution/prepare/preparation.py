"""A recipe → everything that its training needs, loaded and checked, with nothing written yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import transformers
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from posttrain.algorithms import built
from posttrain.data.demonstrations import DemonstrationReader
from posttrain.data.encoder import Encoder
from posttrain.data.prepare import examples, problems
from posttrain.data.rows import DataReport, Example, Problem, digest
from posttrain.data.sources import Record, read
from posttrain.errors import DataError, RecipeError
from posttrain.estimator.algorithm import Algorithm
from posttrain.execution.memory.footprint import Footprint, footprint
from posttrain.execution.prepare.presample import filtered, presample, summary
from posttrain.model.load import eos_ids, load
from posttrain.recipe.recipe import Recipe
from posttrain.rewards.make import check_code, make_grader, make_rewards, named
from posttrain.rollout.make import make_engine, rollout_sampling
from posttrain.rollout.vllm.backend import check_usable
from posttrain.settings.rollout import SamplingConfig
from posttrain.train.collect.make import check_sampling
from posttrain.train.collect.right_demonstrations import with_right_demonstrations


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that training needs, loaded and checked; nothing has been written yet."""

    recipe: Recipe
    algorithm: Algorithm
    model: Any
    tokenizer: Any
    train: list[Example] | list[Problem]
    held_out: dict[str, list[Example]]
    problems: dict[str, list[Problem]]
    demonstrations: list[Example]
    candidates: list[Problem]
    """Questions that are sampled before training, where the recipe says so."""
    reports: dict[str, DataReport]
    collected: dict[str, float] = field(default_factory=dict[str, float])
    """What came of that."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        training = self.recipe.training
        if training.max_steps is not None:
            return training.max_steps
        per_question = self.algorithm.needs.rollouts or 1
        return max(1, -(-int((training.epochs or 0) * len(self.train) * per_question) // training.rows_per_step))

    def footprint(self) -> Footprint:
        """What each process of the run takes of its memory, by the formulas."""
        sampling = self.recipe.rollout or (self.recipe.data.collect and self.recipe.data.collect.chosen)
        answer = sampling.max_tokens if sampling else 0
        read = [len(row) for one in (*self.train, *self.demonstrations) if isinstance(one, Example) for row in one.rows]
        asked = [len(one.prompt) + answer for one in self.train if not isinstance(one, Example)]
        longest = max(read + asked)
        return footprint(self.recipe, self.algorithm, self.model, longest=longest)

    def facts(self) -> dict[str, Any]:
        """What a run that goes on must share: a digest of each set of its data. And the versions, to be read by a person."""
        sets = {"data.train": self.train, "data.demonstrations": self.demonstrations}
        sets |= {f"data.eval.{name}": rows for name, rows in self.held_out.items()}
        sets |= {f"the questions of data.eval.{name}": rows for name, rows in self.problems.items()}
        versions = {name: version(name) for name in ("torch", "transformers", "posttrain")}
        return {"data": {name: digest(rows) for name, rows in sets.items() if rows}, "versions": versions}

    def plan(self) -> dict[str, Any]:
        """What the run will do, for a reader."""
        rows, needs = self.recipe.training.rows_per_step, self.algorithm.needs
        lengths = [one.tokens if isinstance(one, Example) else len(one.prompt) for one in self.train]
        fed = {"tokens per step": round(sum(lengths) / len(lengths) * rows)}
        if self.recipe.rollout is not None:
            fed = {
                "engine": self.recipe.rollout.engine,
                "questions per collection": self.recipe.rollout.questions_per_step,
                "rollouts per question": needs.rollouts,
                "steps per collection": needs.updates,
                "tokens of the longest prompt": max(lengths),
                "tokens of an answer, at most": self.recipe.rollout.max_tokens,
            }
        return {
            "algorithm": repr(self.algorithm),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "trainable parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "questions" if needs.rollouts else "training rows": len(self.train),
            **self.footprint().rows(),
            "rows left out or cut": {name: dict(report.counters) for name, report in self.reports.items() if report.counters},
            "evaluation rows": {name: len(rows) for name, rows in {**self.problems, **self.held_out}.items()},
            "rollouts per step" if needs.rollouts else "rows per step": rows,
            **fed,
            **({"rows of demonstrations": len(self.demonstrations)} if self.demonstrations else {}),
            **({"questions sampled before training": len(self.candidates)} if self.candidates else {}),
            "steps": self.steps,
            "passes over the data": round(self.steps * rows / (needs.rollouts or 1) / len(self.train), 2),
            "dropout": "off: the algorithm compares log-probs" if needs.exact_logp else "as the model has it",
            "output": self.recipe.output_dir,
        }


def prepare(recipe: Recipe, *, allow_remote_engine: bool, allow_code: bool) -> Prepared:
    """Loads the model and the data of a recipe. Writes nothing.

    Raises:
        RecipeError: the algorithm has no use for what the recipe gives it.
        SetupError: the model, the tokenizer or the rollout engine cannot be used, or the recipe's code may not run.
        DataError: the data cannot be used.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    algorithm = built(recipe.algorithm)
    recipe.check_built(algorithm)
    if recipe.data.makes_data and (algorithm.needs.preference or algorithm.needs.demonstration not in ("row", "prefix")):
        raise RecipeError(
            f"data.collect: rejection_sampling makes demonstrations, and {algorithm.name} takes none with its questions."
        )
    check_code(recipe.rewards, allow_code=allow_code)
    for sampling in (recipe.rollout, recipe.data.collect and recipe.data.collect.chosen):
        if sampling is not None and sampling.engine == "vllm":
            check_usable(sampling.vllm, allow_remote=allow_remote_engine)
    unset_hf_deepspeed_config()  # of the stage before: a model is loaded whole, and spread out when all of it is made
    model, tokenizer = load(recipe.model, seed=recipe.seed)
    if recipe.rollout is not None:
        check_sampling(algorithm, rollout_sampling(recipe.rollout, recipe.seed))
    limit = getattr(model.config, "max_position_embeddings", None)
    encoder = Encoder(tokenizer, recipe.data, eos_ids(model, tokenizer), limit)
    reports: dict[str, DataReport] = {}
    candidates: list[Problem] = []
    if recipe.data.collect is not None:
        candidates, reports["candidates"] = _candidates(recipe, model, tokenizer)
    if recipe.data.makes_data and recipe.rollout is None:
        train, reports["train"] = candidates, reports.pop("candidates")
    else:
        train, reports["train"] = _train(recipe, algorithm, model, tokenizer, encoder)
    shown: list[Example] = []
    if (source := recipe.data.demonstrations) is not None:
        skip = recipe.data.on_bad_row == "skip"
        shown, reports["demonstrations"] = examples(
            read(source), encoder, preference=False, label="data.demonstrations", skip_bad_rows=skip
        )
    held_out, asked = _evaluated(recipe, algorithm, model, tokenizer, encoder, reports)
    return Prepared(recipe, algorithm, model, tokenizer, train, held_out, asked, shown, candidates, reports)


def presampled(prepared: Prepared, path: Path, *, allow_remote: bool) -> Prepared:
    """The same with the data that `data.collect` makes of what the start model answers; `path` has a line for each question.

    Raises:
        DataError: nothing is left to be trained on.
        EngineError: the engine failed; what was sampled until then is kept.
    """
    recipe, config = prepared.recipe, prepared.recipe.data.collect
    assert config is not None
    grader = make_grader(recipe.rewards, recipe.data.train)
    engine = make_engine(config.chosen, prepared.model, prepared.tokenizer, allow_remote=allow_remote)
    try:
        engine.sync(prepared.model, 0)
        sampling = rollout_sampling(config.chosen, recipe.seed)
        sampled = presample(config, prepared.candidates, engine, grader, prepared.tokenizer, sampling, path)
    finally:
        engine.close()
        grader.close()
    shown = prepared.algorithm.needs.own_demonstrations
    train, report = filtered(config, prepared.train, sampled, demonstrations=shown)
    reports = {**prepared.reports, "collect": report}
    return replace(prepared, train=train, reports=reports, collected=summary(sampled, config.chosen.k))


def _candidates(recipe: Recipe, model: Any, tokenizer: Any) -> tuple[list[Problem], DataReport]:
    """The questions of data.train, with their answers, that are sampled before training."""
    config = recipe.data.collect
    assert config is not None
    encoder = _with_room(recipe, model, tokenizer, config.chosen, config.chosen.max_tokens, "data.collect: max_tokens")
    skip = recipe.data.on_bad_row == "skip"
    return problems(read(recipe.data.train), encoder, label="data.train", skip_bad_rows=skip)


def _train(
    recipe: Recipe, algorithm: Algorithm, model: Any, tokenizer: Any, encoder: Encoder
) -> tuple[list[Example] | list[Problem], DataReport]:
    """Demonstrations or pairs; for an algorithm over rollouts, the questions whose answers find room in the context.

    The rewards are started once, so that one that cannot be is found before anything is trained.
    """
    records, skip = read(recipe.data.train), recipe.data.on_bad_row == "skip"
    if recipe.rollout is None:
        preference = algorithm.needs.preference
        return examples(records, encoder, preference=preference, label="data.train", skip_bad_rows=skip)
    most, shown = recipe.rollout.max_tokens, algorithm.needs.own_demonstrations and not recipe.data.makes_data
    reader = DemonstrationReader(encoder, most, recipe.data.on_long_completion) if shown else None
    encoder = _with_room(recipe, model, tokenizer, recipe.rollout, most, "rollout.max_tokens")
    needs = dict.fromkeys(name for reward in named(recipe.rewards) for name in reward.columns)
    asked, report = problems(records, encoder, needs=needs, demonstrations=reader, label="data.train", skip_bad_rows=skip)
    rewards = make_rewards(recipe.rewards, recipe.data.train, max_tokens=most)
    try:
        wrong = recipe.data.on_wrong_demonstration
        return (with_right_demonstrations(asked, rewards, tokenizer, report, on_wrong=wrong) if shown else asked), report
    finally:
        for entry in rewards:
            entry.reward.close()


def _evaluated(
    recipe: Recipe, algorithm: Algorithm, model: Any, tokenizer: Any, encoder: Encoder, reports: dict[str, DataReport]
) -> tuple[dict[str, list[Example]], dict[str, list[Problem]]]:
    """Of each evaluation set what the loss is computed on, and the questions that are asked; with their reports."""
    skip, preference = recipe.data.on_bad_row == "skip", algorithm.needs.preference
    held_out, asked = dict[str, list[Example]](), dict[str, list[Problem]]()
    for name, source in recipe.data.eval.items():
        records, label = list(read(source)), f"data.eval.{name}"
        if not records:
            raise DataError(f"{label}: the source is empty.")
        if recipe.eval.loss and not algorithm.needs.rollouts and _has_completions(records, preference):
            held_out[name], reports[name] = examples(records, encoder, preference=preference, label=label, skip_bad_rows=skip)
        if recipe.eval.samples:
            asking = _with_room(recipe, model, tokenizer, recipe.rollout, recipe.eval.max_tokens, "eval.max_tokens")
            asked[name], reports[f"{name}/problems"] = problems(records, asking, label=label, skip_bad_rows=skip)
            asked[name] = asked[name][: recipe.eval.limit]
        if name not in held_out and name not in asked:
            raise DataError(f"{label}: nothing to evaluate: no completions, and eval.samples is 0.")
    return held_out, asked


def _with_room(
    recipe: Recipe, model: Any, tokenizer: Any, sampling: SamplingConfig | None, max_tokens: int, key: str
) -> Encoder:
    """An encoder of prompts whose answers find room in the context, the model's or the engine's."""
    limits = [getattr(model.config, "max_position_embeddings", None)]
    if sampling is not None and sampling.engine == "vllm":
        limits.append(sampling.vllm.max_model_len)
    context = min((limit for limit in limits if limit is not None), default=None)
    if context is not None and context <= max_tokens:
        raise RecipeError(f"{key}: {max_tokens} leaves no room in a context of {context}.")
    limit = None if context is None else context - max_tokens + 1
    return Encoder(tokenizer, recipe.data, eos_ids(model, tokenizer), limit)


def _has_completions(records: Sequence[Record], preference: bool) -> bool:
    first = next((record.columns for record in records if record.fault is None), {})
    return {"chosen", "rejected"} <= set(first) if preference else bool({"completion", "messages"} & set(first))
