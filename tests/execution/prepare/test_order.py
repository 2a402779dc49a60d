"""The order of a recipe over the rows that there are: what is read of each, what is refused, and what the plan says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posttrain.data.rows import Problem
from posttrain.errors import DataError
from posttrain.execution.prepare.preparation import Prepared, prepare
from posttrain.execution.prepare.presample import Sampled, filtered
from posttrain.recipe.recipe import load_recipe
from posttrain.settings.data.collect import CollectConfig
from posttrain.settings.doors.permissions import Permissions
from posttrain.telling import hearing
from recipes import SCRATCH, recipe, write

ROWS = [
    {
        "prompt": f"{i}+1=",
        "completion": "1" * (1 + i % 5),
        "answer": "1",
        "rejected": "0",
        "level": i % 4,
        "topic": "abc"[i % 3],
        "text": None,
    }
    for i in range(12)
]
GRPO: dict[str, Any] = {
    "algorithm": {"name": "grpo"},
    "rollout": {"questions_per_step": 4, "n": 2, "max_tokens": 4},
    "rewards": [{"name": "exact_match"}],
    "training": {"max_steps": 3},
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def prepared(order: dict[str, Any] | None = None, rows: list[dict[str, Any]] | None = None, **changes: Any) -> Prepared:
    train = {"path": write(Path("rows.jsonl"), *(rows or ROWS))}
    data = {"train": train, "chat_template": False, **({"order": order} if order else {}), **changes.pop("data", {})}
    values = {"model": {**SCRATCH, "tokenizer": {"characters": "0123456789+="}}, "data": data, **changes}
    return prepare(load_recipe(recipe(**values)), Permissions())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"algorithm": {"name": "dpo"}, "data": {"train": {"path": "rows.jsonl", "columns": {"chosen": "completion"}}}},
        GRPO,
    ],
)
def test_demonstrations_pairs_and_questions_are_read_by_a_column(changes: dict[str, Any]) -> None:
    made = prepared({"by": "level", "rule": "descending"}, **changes)
    places = [int(made.sets.train[row].where.split(":")[1]) - 1 for row in made.order.of(0, 3)]
    assert [ROWS[place]["level"] for place in places] == [3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]
    assert places != sorted(range(12), key=lambda place: -int(ROWS[place]["level"]))
    what = "questions" if "rollout" in changes else "rows"
    assert made.plan()[f"order of the {what}"] == "by level, descending (0 to 3); the same: in random order"


def test_length_is_of_prompt_and_answer_and_of_a_question_of_its_prompt() -> None:
    made = prepared({"by": "length", "rule": "ascending"})
    lengths = [made.sets.train[row].tokens for row in made.order.of(0, 3)]
    assert lengths == sorted(lengths) and (lengths[0], lengths[-1]) == (6, 10)
    assert made.plan()["order of the rows"] == "by length, ascending (6 to 10); the same: in random order"
    asked = prepared({"by": "length", "rule": "descending"}, **GRPO)
    assert [asked.sets.train[row].tokens for row in asked.order.of(0, 3)] == [5, 5] + [4] * 10


def test_categories_are_text_or_numbers_and_rows_within_them_are_ordered() -> None:
    made = prepared({"by": "topic", "rule": "interleaved", "within": "level"})
    rows = [ROWS[int(made.sets.train[row].where.split(":")[1]) - 1] for row in made.order.of(0, 3)]
    assert all({row["topic"] for row in rows[first : first + 3]} == {*"abc"} for first in range(0, 12, 3))
    assert [row["level"] for row in rows] == sorted(row["level"] for row in rows)
    said = "by topic, interleaved, in each by level, ascending (3 categories); the same: in random order"
    assert made.plan()["order of the rows"] == said
    assert "(4 categories)" in prepared({"by": "level", "rule": "blocked"}).plan()["order of the rows"]


def test_the_plan_has_the_passes_of_a_cycle() -> None:
    rows = [{**row, "level": 1 + i} for i, row in enumerate(ROWS)]
    made = prepared({"by": "level", "rule": "cyclical"}, rows)
    assert made.plan()["rows of each pass, in turn"] == "3, 6, 12, 6"


@pytest.mark.parametrize(
    ("order", "row", "says"),
    [
        ({"by": "level", "rule": "ascending"}, {"level": "hard"}, "level must be a finite number, not 'hard'"),
        ({"by": "level", "rule": "ascending"}, {"level": None}, "level must be a finite number, not None"),
        ({"by": "level", "rule": "cyclical"}, {}, "level must be above 0, for rows are drawn with chances of 1 / level"),
        ({"by": "topic", "rule": "blocked"}, {"topic": ["a"]}, r"topic must be a category, text or a number, not \['a'\]"),
        ({"by": "topic", "rule": "blocked", "within": "rank"}, {}, "rank must be a finite number, not None"),
    ],
)
@pytest.mark.parametrize("changes", [{}, GRPO])
def test_a_row_without_what_it_is_ordered_by_is_named(
    order: dict[str, Any], row: dict[str, Any], says: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl:1: data\.order: {says}\. Mend it"):
        prepared(order, [{**ROWS[0], **row}, *ROWS[1:]], **changes)


def test_what_it_is_ordered_by_is_read_and_the_run_is_of_these_data_alone() -> None:
    with hearing() as told:
        made = prepared({"by": "level", "rule": "ascending"})
    assert not any("level" in one.sentence for one in told if one.rule == "unread-columns")
    again = prepared({"by": "level", "rule": "ascending"}, [{**ROWS[0], "level": 9}, *ROWS[1:]])
    assert made.sets.digests != again.sets.digests
    plain = [prepared(rows=rows).sets.digests for rows in (ROWS, [{**ROWS[0], "level": 9}, *ROWS[1:]])]
    assert plain[0] == plain[1] != made.sets.digests


def test_right_answers_of_the_start_model_are_ordered_as_their_questions_are() -> None:
    collect = {"rejection_sampling": {"k": 2, "max_tokens": 4}}
    made = prepared({"by": "level", "rule": "ascending"}, data={"collect": collect})
    assert all(isinstance(one, Problem) for one in made.sets.train)
    sampled = [Sampled(one.where, 1, 0, [[3, 4]]) for one in made.sets.candidates]
    kept, _ = filtered(CollectConfig.model_validate(collect), made.sets.candidates, sampled, demonstrations=False)
    assert [one.ordered_by for one in kept] == [(float(row["level"]),) for row in ROWS]


def test_the_plan_says_what_steps_of_tokens_read() -> None:
    made = prepared(training={"epochs": 2, "tokens_per_step": 24})
    plan, sizes = made.plan(), made.order.sizes(0, made.steps)
    assert plan["steps"] == made.steps == len(sizes) and sum(sizes) == made.read == 24
    total = sum(row.tokens for row in made.sets.train)
    assert plan["tokens per step"] == f"at most 24, about {2 * total / made.steps:,.0f} on average"
    assert plan["rows per step"] == f"{min(sizes)} to {max(sizes)}, {24 / made.steps:.1f} on average"
    assert plan["passes over the data"] == 2.0 and "rows of the last step" not in plan
    longer = prepared(training={"max_steps": 7, "tokens_per_step": 24})
    assert longer.steps == 7 and longer.read == sum(longer.order.sizes(0, 7))


def test_rows_longer_than_a_step_and_a_step_longer_than_the_data_are_told() -> None:
    with hearing() as told:
        made = prepared(training={"max_steps": 3, "tokens_per_step": 8})
    long = [row for row in made.sets.train if row.tokens > 8]
    assert [one.sentence for one in told if one.rule == "tokens-per-step"] == [
        f"training.tokens_per_step: {len(long)} of 12 rows have more than 8 tokens, and each is a step of its own; the first "
        f"is {long[0].where}, of {long[0].tokens}."
    ]
    assert len(long) > 1 and 1 in made.order.sizes(0, 12)
    with hearing() as told:
        prepared(training={"max_steps": 3, "tokens_per_step": 4096})
    [sentence] = [one.sentence for one in told if one.rule == "rows-per-step"]
    assert sentence.startswith("training.tokens_per_step: ") and sentence.endswith("more than the 12 that the data give.")
