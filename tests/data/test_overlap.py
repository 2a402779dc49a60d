"""What training and evaluation share: planted copies and near copies are found, and nothing of what is unrelated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gsm8k import real_data
from posttrain.data.overlap import COMMON, Overlap, Overlaps, question
from posttrain.data.sources import Record
from recipes import SCRATCH, Command, in_cells, recipe, write

WORDS = [f"{first}{last}" for first in "bdfgkl" for last in ("ab", "eg", "id", "om", "un", "yr")]


def sentence(seed: int, length: int = 30) -> str:
    return " ".join(Random(seed).choices(WORDS, k=length))


def records(*rows: dict[str, Any], name: str = "q") -> list[Record]:
    return [Record(f"{name}:{i}", row) for i, row in enumerate(rows)]


def found(train: Sequence[Record], asked: Sequence[Record], words: int = 8) -> Overlap:
    looked = Overlaps({"test": asked}, words=words)
    assert [one.where for one in looked.through(train)] == [one.where for one in train]
    [one] = looked.found()
    return one


def test_planted_copies_and_near_copies_are_found_and_nothing_of_a_control() -> None:
    asked = records(*({"prompt": sentence(seed)} for seed in range(40)))
    control = records(*({"prompt": sentence(1000 + seed)} for seed in range(200)), name="x")
    assert found(control, asked).ngram == 0
    part = " ".join(sentence(2).split()[5:14])
    planted = [
        {"prompt": sentence(0).upper().replace(" ", "\n ")},
        {"prompt": "a", "completion": f"As they say: {part}!"},
        {"text": f"{sentence(50)} {sentence(3)}"},
        {"messages": [{"role": "user", "content": "b"}, {"role": "assistant", "content": sentence(4).replace(" ", ", ")}]},
        {"messages": [{"role": "user", "content": sentence(5)}, {"role": "assistant", "content": "c"}]},
        {"prompt": "d", "chosen": "e", "rejected": [{"role": "assistant", "content": sentence(6)}]},
    ]
    one = found([*control, *records(*planted, name="p")], asked)
    assert (one.questions, one.exact, one.ngram, one.rows) == (40, 2, 6, 6)
    assert one.at == ["q:0", "q:2", "q:3", "q:4", "q:5"]


def test_short_questions_are_compared_whole_and_by_every_sign() -> None:
    one = found(
        records({"prompt": "7+4="}, {"prompt": "Was  ist das?"}), records({"prompt": "7-4="}, {"prompt": "was ist das?"})
    )
    assert (one.exact, one.ngram) == (1, 1)


def test_a_phrase_of_many_questions_says_nothing() -> None:
    phrase = "Answer the question below with one word and then stop at once please."
    asked = records(*({"prompt": f"{phrase} {sentence(seed, 12)}"} for seed in range(COMMON + 1)))
    assert found(records({"prompt": f"{phrase} Why?"}), asked).ngram == 0
    assert found(records({"prompt": f"{phrase} Why?"}), asked[:COMMON]).ngram == COMMON


def test_a_question_is_what_the_user_says() -> None:
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert question({"messages": [*talk, {"role": "user", "content": "c"}]}) == "a\nc" and question({"prompt": talk}) == "a"
    assert question({"prompts": ["a", talk]}) == "a\na" and question({"prompt": None, "messages": talk}) == "a"
    assert found(records({"messages": talk}), records({"prompt": "a"})).exact == 1
    longer = {"messages": [*talk, {"role": "user", "content": "c"}]}
    assert found(records(longer), records({"prompt": "c"})).exact == 1
    assert question({"prompts": ["a", "b"]}) == "a\nb" and question({"text": "t"}) == "t" and question({}) == ""
    assert found(records({"other": "x"}), records({"other": "x"})).exact == 0
    assert found(records({"other": "x"}, {"prompt": " "}), records({"prompt": "  "})).ngram == 0


def test_a_stretch_may_go_on_in_the_next_step_of_a_demonstration() -> None:
    steps = [sentence(0, 6), sentence(1, 6)]
    assert found(records({"prompt": "a", "demonstration": steps}), records({"prompt": " ".join(steps)})).ngram == 1


def test_rows_are_left_out_where_that_is_asked_for_and_of_those_sets_alone() -> None:
    asked = {"test": records({"prompt": sentence(0)}), "seen": records({"prompt": sentence(1)})}
    looked = Overlaps(asked, words=8, dropping=["test"])
    kept = [*looked.through(records(*({"prompt": sentence(seed)} for seed in range(3)), name="x"))]
    assert [one.left_out is not None for one in kept] == [True, False, False]
    assert kept[0].left_out == ("shared_with_evaluation", "its question stands in data.eval.test (data.decontaminate)")
    assert [(one.name, one.exact, one.rows) for one in looked.found()] == [("test", 1, 1), ("seen", 1, 1)]
    asked = {"test": records({"prompt": f"{sentence(1)} why"}), "seen": records({"prompt": sentence(1)})}
    [one] = Overlaps(asked, words=8, dropping=["test"]).through(records({"prompt": sentence(1)}))
    assert one.left_out == ("shared_with_evaluation", "8 words in a row of it stand in data.eval.test (data.decontaminate)")


@pytest.mark.system
@pytest.mark.parametrize(("n", "solutions", "shared"), [(13, False, 3), (8, False, 80), (13, True, 3), (8, True, 82)])
def test_what_gsm8k_shares_with_its_test_part(n: int, solutions: bool, shared: int) -> None:
    """Questions with questions; and with what is trained on, solutions too, as a run has it."""
    folder = real_data()

    def read(part: str) -> list[Record]:
        rows = map(json.loads, (folder / f"gsm8k_{part}.jsonl").read_text().splitlines())
        answers = solutions and part == "train"
        return records(*({"prompt": row["question"], **({"completion": row["answer"]} if answers else {})} for row in rows))

    one = found(read("train"), read("test"), n)
    assert (one.questions, one.exact, one.ngram) == (1319, 0, shared)


def test_a_run_tells_of_it_and_leaves_out_what_it_is_told_to(tmp_path: Path, posttrain: Command) -> None:
    data = write(tmp_path / "rows.jsonl", *({"prompt": sentence(seed), "completion": "b"} for seed in range(4)))
    test = write(tmp_path / "test.jsonl", {"prompt": sentence(0), "completion": "b"})
    sets = {"train": {"path": data}, "eval": {"test": {"path": test}}, "max_tokens": 400}
    code, out, err = posttrain("run", recipe(data=sets, model={**SCRATCH, "tokenizer": "bytes"}))
    assert code == 0 and "data.eval.test: 1 of 1 questions stand in what is trained on" in in_cells(err + out), err
    dropping = ("--set=data.decontaminate.on_hit=drop", "--set=output_dir=two")
    code, out, err = posttrain("run", "recipe.yaml", *dropping)
    assert code == 0 and "1 rows of training, which are left out" in in_cells(err + out), err
    [left] = [json.loads(line) for line in Path("two/left_out.jsonl").read_text().splitlines()]
    assert left["where"] == f"{data}:1" and "shared_with_evaluation" in left.values()
    code, _, err = posttrain("run", "recipe.yaml", *dropping, "--set=data.decontaminate.against=[other]")
    assert code == 2 and "decontaminate: against: other is no set of eval (test)" in err
