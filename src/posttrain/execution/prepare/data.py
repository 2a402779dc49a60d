"""A recipe's sets as rows and questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from posttrain.data.columns import compared_by, shown_by, tell_unread
from posttrain.data.encoding.teacher import Asked
from posttrain.data.overlap import Overlap, Overlaps
from posttrain.data.reader import Reader
from posttrain.data.rows import DataReport, Example, Problem, Row, digest
from posttrain.data.sources import Record, read
from posttrain.errors import DataError
from posttrain.estimator import Algorithm
from posttrain.execution.prepare.collect.asking import asked_first, room_for
from posttrain.execution.prepare.mixture import Part, held_of, parts, records_of
from posttrain.execution.prepare.passage import Passage, told_of
from posttrain.model.load import context_of
from posttrain.model.proofs.tokens import ROWS
from posttrain.model.tokenizer import eos_ids
from posttrain.recipe import Recipe
from posttrain.rewards.base import Wanted, Weighted
from posttrain.rewards.demonstrations import demonstration_faults
from posttrain.settings.data import Generated
from posttrain.telling import tell
from posttrain.train.given.rows import read_as

MADE = {"values": False, "data": False}
"""Rows that are whole."""


@dataclass(slots=True)
class Sets:
    """All that a recipe's data became: what is trained on, what is evaluated, and what was left out of each.

    `candidates` are questions that are sampled before training, where the recipe says so. `demonstrations` are those of a
    set of their own. `transforms` says what was done to rows before they were encoded, and in which sets.
    """

    train: list[Example] | list[Problem]
    candidates: list[Problem] = field(default_factory=list[Problem])
    demonstrations: list[Example] = field(default_factory=list[Example])
    held_out: dict[str, list[Example]] = field(default_factory=dict[str, list[Example]])
    problems: dict[str, list[Problem]] = field(default_factory=dict[str, list[Problem]])
    reports: dict[str, DataReport] = field(default_factory=dict[str, DataReport])
    overlaps: list[Overlap] = field(default_factory=list[Overlap])
    transforms: list[str] = field(default_factory=list[str])

    @property
    def forms(self) -> dict[str, Any]:
        """Rows of the plan: how files are written, where that is in no columns of ours, and what is done to their rows."""
        forms = {name: dict(report.forms) for name, report in self.reports.items() if report.forms}
        return {
            **({"formats of the rows": forms} if forms else {}),
            **({"transforms": ", ".join(self.transforms)} if self.transforms else {}),
        }

    @property
    def shared(self) -> dict[str, Any]:
        """Of what evaluation sets share with training a row of the plan."""
        found = {
            one.name: f"{one.exact} the same, {one.ngram} the same or with {one.words} words in common"
            for one in self.overlaps
        }
        return {"questions of evaluation that stand in training": found} if found else {}

    @property
    def digests(self) -> dict[str, str]:
        """Of each set, and of each source of a mixture."""
        sources = dict.fromkeys(row.source for row in self.train)
        mixed = {f"data.train.mix.{name}": [row for row in self.train if row.source == name] for name in sources if name}
        sets: dict[str, Sequence[Example | Problem]] = {**(mixed or {"data.train": self.train})}
        sets |= {"data.demonstrations": self.demonstrations}
        sets |= {f"data.eval.{name}": rows for name, rows in self.held_out.items()}
        sets |= {f"the questions of data.eval.{name}": rows for name, rows in self.problems.items()}
        return {name: digest(rows) for name, rows in sets.items() if rows}

    def longest(self, answer: int, *, shown: int) -> dict[str, int]:
        """Tokens of the longest row, and of the longest prompt, as student or teacher read them, where answers have so many
        tokens, of which so many are `shown` to the teacher.
        """
        everything = (*self.train, *self.demonstrations)
        read = [row.longest for one in everything if isinstance(one, Example) for row in one.rows]
        questions = [one for one in self.train if isinstance(one, Problem)]
        asked = [max(len(one.prompt), len(one.teacher_prompt or ()) + shown) for one in questions]
        longest = max([len(row) for row in read] + [prompt + answer for prompt in asked])
        prompt = min(max([len(row.prompt) for row in read] + asked), longest - 1)
        return {"longest": longest, "prompt": prompt}

    @property
    def first_rows(self) -> list[list[int]]:
        """Token ids of the first rows, on which tokenizers and models that are saved are tried."""
        first = [one.rows[0] if isinstance(one, Example) else one for one in self.train[:ROWS]]
        return [[*one.prompt.tolist(), *one.completion.tolist()] if isinstance(one, Row) else [*one.prompt] for one in first]


def read_sets(
    recipe: Recipe,
    algorithm: Algorithm,
    model: Any,
    tokenizer: Any,
    rewards: Sequence[Weighted],
    teacher: Asked | None = None,
) -> Sets:
    """Reads every set of the recipe.

    Args:
        recipe: says which.
        algorithm: says whether they are demonstrations, pairs or questions.
        model: whose context bounds them.
        tokenizer: of the model.
        rewards: of training; they say which columns they read, and which demonstrations are right.
        teacher: how one is asked, where it is asked something else.

    Raises:
        RecipeError: answers have no room in the context, or a transform cannot be had.
        DataError: a set cannot be used.
    """
    reader = Reader(recipe.data, tokenizer, eos_ids(model, tokenizer), context_of(model))
    sets, held = Sets([]), held_of(recipe.data)
    looked = Overlaps(held, words=recipe.data.decontaminate.n, dropping=recipe.data.kept_clean_of)
    passage, sets.transforms = Passage(recipe, looked), told_of(recipe)
    if recipe.data.generates:
        sets.train, sets.reports["train"] = asked_first(recipe, algorithm, model, tokenizer, looked)
        sets.candidates = sets.train
    for part in parts(recipe.data) if not recipe.data.generates else ():
        _read_part(part, recipe, algorithm, model, tokenizer, reader, passage, rewards, sets, teacher)
    if (source := recipe.data.demonstrations) is not None:
        shown = reader.examples(passage.trained(read(source)), teacher=teacher, label="data.demonstrations")
        sets.demonstrations, sets.reports["demonstrations"] = shown
    for name, records in held.items():
        _evaluated(name, passage.asked(records), recipe, algorithm, model, reader, sets, teacher)
    sets.overlaps = looked.found()
    tell_overlaps(recipe, sets)
    _tell_unread(recipe, sets)
    return sets


def _read_part(
    part: Part,
    recipe: Recipe,
    algorithm: Algorithm,
    model: Any,
    tokenizer: Any,
    reader: Reader,
    passage: Passage,
    rewards: Sequence[Weighted],
    sets: Sets,
    teacher: Asked | None,
) -> None:
    """One source of what is trained on, after those before it."""
    asked, kept = list[Problem](), list[Any]()
    for chosen in recipe.data.steps:
        room = room_for(model, chosen, chosen.max_tokens, "data.collect: max_tokens", teacher)
        records = passage.trained(records_of(part, recipe.data, recipe.seed))
        asked, sets.reports[part.candidates] = reader.problems(records, **room, teacher=teacher, label=part.label)
    if recipe.data.makes_data and recipe.rollout is None:
        kept, sets.reports[part.report] = asked, sets.reports.pop(part.candidates)
    else:
        records = passage.trained(records_of(part, recipe.data, recipe.seed))
        made = {"values": recipe.data.makes_values, "data": recipe.data.makes_data}
        kept, sets.reports[part.report] = train_set(
            recipe, algorithm, model, tokenizer, records, rewards, teacher, part.label, later=made
        )
    sets.candidates += _named(part, asked)
    rows: list[Any] = sets.train
    rows += _named(part, kept)


def _named(part: Part, rows: Sequence[Any]) -> list[Any]:
    return [replace(row, source=part.name) for row in rows] if part.name else [*rows]


def tell_overlaps(recipe: Recipe, sets: Sets) -> None:
    """What is trained on though it is evaluated on."""
    for one in sets.overlaps:
        if one.ngram:
            left = one.name in recipe.data.kept_clean_of
            tell(
                "overlap",
                f"data.eval.{one.name}: {one.exact} of {one.questions} questions stand in what is trained on, and "
                f"{one.ngram} are the same or share {one.words} words in a row with it ({', '.join(one.at)}): "
                f"{one.rows} rows of training, "
                + ("which are left out." if left else "which data.decontaminate: {on_hit: drop} leaves out."),
            )


def _tell_unread(recipe: Recipe, sets: Sets) -> None:
    """Columns of files and of the hub that nothing reads, of each source once, however often it is read."""
    trained = parts(recipe.data)
    sources: dict[str, tuple[Any, tuple[str, ...]]] = {
        one.label: (one.source, (one.report, one.candidates)) for one in trained
    }
    if recipe.data.demonstrations is not None:
        sources["data.demonstrations"] = (recipe.data.demonstrations, ("demonstrations",))
    sources |= {f"data.eval.{name}": (source, (name, f"{name}/problems")) for name, source in recipe.data.eval.items()}
    for label, (source, names) in sources.items():
        reports = [sets.reports[name] for name in names if name in sets.reports]
        if isinstance(source, Generated):  # has columns for every kind of training
            for report in reports:
                report.unread.clear()
        else:
            tell_unread(label, reports)


def train_set(
    recipe: Recipe,
    algorithm: Algorithm,
    model: Any,
    tokenizer: Any,
    records: Iterable[Record],
    rewards: Sequence[Weighted],
    teacher: Asked | None,
    label: str,
    *,
    later: Mapping[str, bool] = MADE,
) -> tuple[list[Example] | list[Problem], DataReport]:
    """Demonstrations or pairs; for an algorithm over rollouts, the questions whose answers find room in the context. What is
    made `later` of these rows, values or demonstrations, is not asked of them.

    Raises:
        DataError: a row cannot be used, or none is left.
    """
    reader = Reader(recipe.data, tokenizer, eos_ids(model, tokenizer), context_of(model))
    if recipe.rollout is None:
        return reader.examples(records, **read_as(algorithm.needs), teacher=teacher, label=label)
    wanted, demonstrated = Wanted.by(rewards), shown_by(algorithm.needs, made=later["data"])
    return reader.problems(
        records,
        **room_for(model, recipe.rollout, recipe.rollout.max_tokens, "rollout.max_tokens", teacher),
        needs=wanted.columns,
        numbers=compared_by(algorithm.needs, made=later["values"]),
        anything=wanted.anything,
        demonstrated=demonstrated,
        faults=None if "rejected" in demonstrated else demonstration_faults(rewards, tokenizer),
        teacher=teacher,
        label=label,
    )


def _evaluated(
    name: str,
    records: Sequence[Record],
    recipe: Recipe,
    algorithm: Algorithm,
    model: Any,
    reader: Reader,
    sets: Sets,
    teacher: Asked | None,
) -> None:
    """Of an evaluation set what the loss is computed on, and the questions that are asked."""
    label, needs = f"data.eval.{name}", algorithm.needs
    if not records:
        raise DataError(f"{label}: the source is empty.")
    if recipe.eval.loss and not needs.rollouts and _has_completions(records, needs.columns):
        wanted = read_as(needs, held_out=True)
        sets.held_out[name], sets.reports[name] = reader.examples(records, **wanted, teacher=teacher, label=label)
    if recipe.eval.samples:
        room = room_for(model, recipe.rollout, recipe.eval.max_tokens, "eval.max_tokens")
        asked, sets.reports[f"{name}/problems"] = reader.problems(records, **room, label=label)
        sets.problems[name] = asked[: recipe.eval.limit]
    if name not in sets.held_out and name not in sets.problems:
        lacking = f"no {' + '.join(needs.columns)}" if needs.columns else "no completions"
        raise DataError(f"{label}: nothing to evaluate: {lacking}, and eval.samples is 0.")


def _has_completions(records: Sequence[Record], columns: Sequence[str]) -> bool:
    first = next((record.columns for record in records if record.fault is None), {})
    return (
        set(columns) <= set(first)
        if columns
        else bool({"completion", "messages"} & set(first)) or ("text" in first and "prompt" not in first)
    )
