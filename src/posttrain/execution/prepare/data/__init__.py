"""A recipe's sets as rows and questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from posttrain.data.columns import compared_by, shown_by, tell_unread
from posttrain.data.encoding.glue import has_tools
from posttrain.data.encoding.teacher import Asked
from posttrain.data.overlap import Overlaps
from posttrain.data.reader import Away, Reader
from posttrain.data.rows import DataReport, Problem
from posttrain.data.rows.on_disk import RowsOnDisk
from posttrain.data.rows.together import joined, pieces
from posttrain.data.sources import Record, read
from posttrain.errors import DataError
from posttrain.estimator import Algorithm
from posttrain.execution.prepare.collect.asking import asked_first, room_for
from posttrain.execution.prepare.data.beginnings import Beginnings
from posttrain.execution.prepare.data.kept import Shelf
from posttrain.execution.prepare.data.key import depends_on
from posttrain.execution.prepare.data.sets import Sets
from posttrain.execution.prepare.data.streamed import streamed
from posttrain.execution.prepare.mixture import Part, held_of, parts, records_of
from posttrain.execution.prepare.passage import Passage, told_of
from posttrain.model.load import context_of
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.recipe import Recipe
from posttrain.rewards.base import Wanted, Weighted
from posttrain.rewards.demonstrations import demonstration_faults
from posttrain.settings.data import Generated
from posttrain.telling import tell
from posttrain.train.given.rows import read_as

MADE = {"values": False, "data": False}
"""Rows that are whole."""


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
    begin = None
    if recipe.environment is not None:
        begin = Beginnings(recipe.environment, recipe.seed, in_words=not has_tools(tokenizer, recipe.data))
    passage, sets.transforms = Passage(recipe, looked, begin=begin), told_of(recipe)
    shelf = Shelf(looked)
    if recipe.data.generates:
        sets.train, sets.reports["train"] = asked_first(recipe, algorithm, model, tokenizer, looked)
        sets.candidates = sets.train
    if (source := recipe.data.streamed) is not None:
        sets.stream = streamed(source, recipe, algorithm, model, reader, passage, teacher)
        sets.train = sets.stream.first
    for part in parts(recipe.data) if not recipe.data.generates and sets.stream is None else ():
        _read_part(part, recipe, algorithm, model, tokenizer, reader, passage, shelf, rewards, sets, teacher)
    if (source := recipe.data.demonstrations) is not None:
        shown = reader.examples(passage.trained(read(source)), teacher=teacher, label="data.demonstrations")
        sets.demonstrations, sets.reports["demonstrations"] = shown
    for rule, source in recipe.training.kept.items():
        examples = reader.examples(passage.trained(read(source)), label=f"training.update: {rule}: of")
        sets.kept_rows[rule], sets.reports[f"update/{rule}"] = examples
    for name, records in held.items():
        _evaluated(name, passage.asked(records), recipe, algorithm, model, reader, sets, teacher)
    sets.overlaps, sets.kept = looked.found(), shelf.told
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
    shelf: Shelf,
    rewards: Sequence[Weighted],
    sets: Sets,
    teacher: Asked | None,
) -> None:
    """One source of what is trained on, after those before it."""
    asked, kept = list[Problem](), list[Any]()

    def read_rows(away: Away | None = None) -> tuple[list[Any], DataReport]:
        records = passage.trained(records_of(part, recipe.data, recipe.seed))
        made = {"values": recipe.data.makes_values, "data": recipe.data.makes_data}
        return train_set(recipe, algorithm, model, tokenizer, records, rewards, teacher, part.label, later=made, away=away)

    for chosen in recipe.data.steps:
        room = room_for(model, chosen, chosen.max_tokens, "data.collect: max_tokens", teacher)
        records = passage.trained(records_of(part, recipe.data, recipe.seed))
        given: dict[str, Any] = {"teacher": teacher, "order": recipe.data.order, "label": part.label}
        if recipe.environment is not None and recipe.environment.says_right:
            given |= {"needs": (), "anything": True}
        asked, sets.reports[part.candidates] = reader.problems(records, **room, **given)
    if recipe.data.makes_data and recipe.rollout is None:
        kept, sets.reports[part.report] = asked, sets.reports.pop(part.candidates)
    elif may_be_on_disk(recipe, algorithm):
        of = partial(depends_on, part, recipe, algorithm, model, tokenizer, teacher)
        kept, sets.reports[part.report] = shelf.rows(part.label, of, read_rows)
    else:
        kept, sets.reports[part.report] = read_rows()
    sets.candidates += _named(part, asked)
    sets.train = joined([*pieces(sets.train), _named(part, kept)])


def may_be_on_disk(recipe: Recipe, algorithm: Algorithm) -> bool:
    """Whether rows are done with once they are encoded. Questions bring columns along, and so do rows in an order; what is
    made of rows before training is made of all of them, and so are advantages of rewards.
    """
    plain = recipe.data.order is None and not recipe.data.steps
    return plain and recipe.rollout is None and algorithm.needs.weight != "advantage"


def _named(part: Part, rows: Sequence[Any]) -> Any:
    if isinstance(rows, RowsOnDisk):
        return rows.named(part.name)
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
    sources |= {
        f"training.update: {rule}: of": (source, (f"update/{rule}",)) for rule, source in recipe.training.kept.items()
    }
    sources |= {f"data.eval.{name}": (source, (name, f"{name}/problems")) for name, source in recipe.data.eval.items()}
    for label, (source, names) in sources.items():
        reports = [sets.reports[name] for name in names if name in sets.reports]
        if not reports and sets.stream is not None:
            reports = [sets.stream.report]
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
    away: Away | None = None,
) -> tuple[list[Any], DataReport]:
    """Demonstrations or pairs, without those that were taken `away`; for an algorithm over rollouts, the questions whose
    answers find room in the context. What is made `later` of these rows, values or demonstrations, is not asked of them.

    Raises:
        DataError: a row cannot be used, or none is left.
    """
    reader, order = Reader(recipe.data, tokenizer, eos_ids(model, tokenizer), context_of(model)), recipe.data.order
    if recipe.rollout is None:
        wanted_as = read_as(algorithm.needs)
        return reader.examples(records, **wanted_as, teacher=teacher, order=order, label=label, away=away)
    wanted, demonstrated = Wanted.by(rewards), shown_by(algorithm.needs, made=later["data"])
    return reader.problems(
        records,
        **room_for(model, recipe.rollout, recipe.rollout.max_tokens, "rollout.max_tokens", teacher),
        needs=wanted.columns,
        numbers=compared_by(algorithm.needs, made=later["values"]),
        anything=wanted.anything or recipe.environment is not None,
        demonstrated=demonstrated,
        faults=None if "rejected" in demonstrated else demonstration_faults(rewards, tokenizer),
        teacher=teacher,
        order=order,
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
        judged = recipe.environment is not None and recipe.environment.says_right
        wanted: dict[str, Any] = {"needs": (), "anything": True} if judged else {}
        asked, sets.reports[f"{name}/problems"] = reader.problems(records, **room, **wanted, label=label)
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
