"""A recipe → everything that its training needs, loaded and checked, with nothing written yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import transformers

from posttrain.algorithms import from_config
from posttrain.data.chat import Encoder
from posttrain.data.prepare import examples, problems
from posttrain.data.rows import DataReport, Example, Problem
from posttrain.data.sources import Record, read
from posttrain.errors import DataError
from posttrain.estimator import Algorithm
from posttrain.models import eos_ids, load
from posttrain.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that training needs, loaded and checked; nothing has been written yet."""

    recipe: Recipe
    algorithm: Algorithm
    model: Any
    tokenizer: Any
    train: list[Example]
    held_out: dict[str, list[Example]]
    problems: dict[str, list[Problem]]
    reports: dict[str, DataReport]

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        training = self.recipe.training
        if training.max_steps is not None:
            return training.max_steps
        return max(1, -(-int((training.epochs or 0) * len(self.train)) // training.rows_per_step))

    def plan(self) -> dict[str, Any]:
        """What the run will do, for a reader."""
        per_row = sum(example.tokens for example in self.train) / len(self.train)
        rows = self.recipe.training.rows_per_step
        return {
            "algorithm": repr(self.algorithm),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "trainable parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "training rows": len(self.train),
            "rows left out or cut": {name: dict(report.counters) for name, report in self.reports.items() if report.counters},
            "evaluation rows": {name: len(rows) for name, rows in {**self.problems, **self.held_out}.items()},
            "rows per step": rows,
            "tokens per step": round(per_row * rows),
            "steps": self.steps,
            "passes over the data": round(self.steps * rows / len(self.train), 2),
            "dropout": "off: the algorithm compares log-probs" if self.algorithm.needs.exact_logp else "as the model has it",
            "output": self.recipe.output_dir,
        }


def prepare(recipe: Recipe) -> Prepared:
    """Loads the model and the data of a recipe. Writes nothing.

    Raises:
        SetupError: the model or the tokenizer cannot be used.
        DataError: the data cannot be used.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    algorithm = from_config(recipe.algorithm)
    model, tokenizer = load(recipe.model, seed=recipe.seed)
    limit = getattr(model.config, "max_position_embeddings", None)
    encoder = Encoder(tokenizer, recipe.data, eos_ids(model, tokenizer), limit)
    skip, preference = recipe.data.on_bad_row == "skip", algorithm.needs.preference
    train, report = examples(read(recipe.data.train), encoder, preference=preference, label="data.train", skip_bad_rows=skip)
    reports, held_out, asked = {"train": report}, dict[str, list[Example]](), dict[str, list[Problem]]()
    for name, source in recipe.data.eval.items():
        records, label = list(read(source)), f"data.eval.{name}"
        if not records:
            raise DataError(f"{label}: the source is empty.")
        if recipe.eval.loss and _has_completions(records, preference):
            held_out[name], reports[name] = examples(records, encoder, preference=preference, label=label, skip_bad_rows=skip)
        if recipe.eval.samples:
            asked[name], reports[f"{name}/problems"] = problems(records, encoder, label=label, skip_bad_rows=skip)
            asked[name] = asked[name][: recipe.eval.limit]
        if name not in held_out and name not in asked:
            raise DataError(f"{label}: nothing to evaluate: no completions, and eval.samples is 0.")
    return Prepared(recipe, algorithm, model, tokenizer, train, held_out, asked, reports)


def _has_completions(records: Sequence[Record], preference: bool) -> bool:
    first = next((record.columns for record in records if record.fault is None), {})
    return {"chosen", "rejected"} <= set(first) if preference else bool({"completion", "messages"} & set(first))
