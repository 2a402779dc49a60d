"""Generated tasks: verifiers, splits, determinism, and completions that mean harm."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.cli.evaluate import TASK_ROWS
from posttrain.data.tasks import ALPHABET, TASKS, Split, generate

SPLITS: tuple[Any, ...] = get_args(Split)
each_task = pytest.mark.parametrize("task", TASKS)
each_split = pytest.mark.parametrize("split", SPLITS)


@each_task
@each_split
def test_demonstrations_are_right_and_rejected_ones_wrong(task: str, split: Split) -> None:
    for item in generate(task, split, 100, seed=1):
        assert TASKS[task].verify(item.completion, item.prompt, item.answer), item
        assert not TASKS[task].verify(item.rejected, item.prompt, item.answer), item
        assert set(item.prompt + item.completion + item.rejected) <= set(ALPHABET)


@each_task
@each_split
def test_the_same_seed_gives_the_same_rows_and_a_longer_set_begins_with_a_shorter(task: str, split: Split) -> None:
    first, again, longer, other = (list(generate(task, split, *of)) for of in ((50, 3), (50, 3), (80, 3), (50, 4)))
    assert first == again == longer[:50] != other


@each_task
def test_splits_share_no_question_whatever_the_seeds(task: str) -> None:
    asked = {s: {item.prompt for seed in (0, 1, 7) for item in generate(task, s, 60, seed)} for s in SPLITS}
    for one in SPLITS:
        for other in SPLITS:
            assert one == other or not asked[one] & asked[other], (one, other)


@each_task
@pytest.mark.parametrize("split", [s for s in SPLITS if s != "train"])
def test_evaluation_splits_hold_as_many_questions_as_eval_asks_for_and_repeat_none(task: str, split: Split) -> None:
    prompts = [item.prompt for item in generate(task, split, TASK_ROWS, seed=0)]
    assert len(set(prompts)) == len(prompts)


@each_task
def test_out_of_distribution_has_more_numbers_than_any_question_of_training(task: str) -> None:
    def numbers(split: Split, rows: int) -> list[int]:
        return [len(re.findall("[0-9]+", item.prompt.split("=")[0])) for item in generate(task, split, rows, 0)]

    assert min(numbers("ood", 50)) > max(numbers("train", 300))


HOSTILE = [
    "__import__('os').system('true')",
    "9**9**9",
    "9**9**9**9**9**9**9",
    "(" * 64,
    "(" * 30 + "3" + ")" * 30,
    "(" * 1_000_000,
    "1" * 5_000_000,
    "9*" * 2_000_000 + "9",
    "-" * 60 + "3",
    "3*\x005+7",
    "3*5+7\n",
    "３*５+７",
    "3*5+7#22",
    "3*5+7 ",
    "3 5 7",
    "3(5)7",
    "0x3*5+7",
    "3*5+07",
    "",
    "#",
    "\ud800",
]


@each_task
@pytest.mark.parametrize("completion", HOSTILE, ids=lambda text: ascii(text[:20]))
def test_hostile_completions_are_wrong_at_once(task: str, completion: str) -> None:
    """They are checked as text: a verifier that evaluated `9**9**9` would not come back."""
    prompts = {"chain": ("3*5+7=", "2"), "running_totals": ("3*5+7=", "52"), "countdown": ("3,5,7=22", "22")}
    assert not TASKS[task].verify(completion, *prompts[task])
    assert not TASKS["countdown"].verify(completion, "9,9,9=9", "9")


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("3*5+7", True),
        ("7+5*3", True),
        ("7+(5*3)", True),
        ("(7)+(5*3)", True),
        ("22", False),
        ("3*5+7+7", False),
        ("3*7+1", False),
    ],
)
def test_countdown_takes_any_solution(completion: str, right: bool) -> None:
    assert TASKS["countdown"].verify(completion, "3,5,7=22", "22") is right


@pytest.mark.parametrize(
    ("completion", "right"), [("52#2", True), ("#2", True), ("99#2", True), ("2", False), ("52#3", False), ("#2#2", False)]
)
def test_chain_asks_for_the_answer_behind_the_mark(completion: str, right: bool) -> None:
    assert TASKS["chain"].verify(completion, "3*5+7=", "2") is right


@settings(max_examples=200)
@given(st.text(max_size=80) | st.text(ALPHABET, max_size=80), st.sampled_from(sorted(TASKS)))
def test_no_completion_makes_a_verifier_raise(completion: str, task: str) -> None:
    item = next(islice(generate(task, "train", 1, 0), 1))
    assert TASKS[task].verify(completion, item.prompt, item.answer) in (True, False)


@each_task
@pytest.mark.parametrize("split", ["train", "validation", "held_out"])
def test_a_share_of_the_questions_can_be_hard(task: str, split: Split) -> None:
    def numbers(hard: float) -> list[int]:
        items = generate(task, split, 60, 0, hard)
        return [len(re.findall("[0-9]+", item.prompt.split("=")[0])) for item in items]

    plain, some, all_hard = numbers(0.0), numbers(0.25), numbers(1.0)
    assert min(all_hard) > max(plain)
    assert sum(count in all_hard for count in some) == 15
    ood = [len(re.findall("[0-9]+", item.prompt.split("=")[0])) for item in generate(task, "ood", 20, 0)]
    assert min(ood) > max(all_hard)


@each_task
def test_hard_questions_are_held_out_by_their_text_like_the_others(task: str) -> None:
    asked = [{item.prompt for item in generate(task, split, 80, 0, 1.0)} for split in SPLITS if split != "ood"]
    assert not asked[0] & asked[1] and not asked[1] & asked[2] and not asked[0] & asked[2]
