"""`posttrain data`: the rows as the model reads them, and what a person should see of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from transformers import Qwen2Config

from pages import Page
from posttrain.data.rows import Example, Row
from posttrain.execution.prepare.data import Sets
from posttrain.execution.report.data_view import SetView, facts_of, view
from posttrain.model.load import make_tokenizer
from recipes import SCRATCH, Command, recipe, write

TOKENIZER = make_tokenizer("bytes")
END: Any = TOKENIZER.eos_token_id


def ids(text: str) -> np.ndarray[Any, Any]:
    return np.array(TOKENIZER.encode(text, add_special_tokens=False), np.int32)


def example(prompt: str, completion: str, where: str, *, end: bool = True, learn_end: bool = True) -> Example:
    told = np.append(ids(completion), END).astype(np.int32) if end else ids(completion)
    mask = np.ones(len(told), np.bool_)
    mask[-1] &= learn_end
    return Example((Row(ids(prompt), told, mask),), where)


def seen(train: list[Any], rows: int = 9, **sets: Any) -> SetView:
    return view(Sets(train, **sets), TOKENIZER, [END], rows).sets[0]


def test_every_token_is_shown_as_what_it_is_to_training() -> None:
    [row] = seen([example("né?", "é👍", "a:1")]).shown
    assert [(token.text, token.kind) for token in row.tokens] == [
        ("n", "given"), ("é", "given"), ("?", "given"), ("é", "learnt"), ("👍", "learnt"), (TOKENIZER.eos_token, "end"),
    ]  # fmt: skip
    assert (row.length, row.learnt) == (4 + 6 + 1, 7)
    [row] = seen([example("a", "b", "a:1", learn_end=False)]).shown
    assert [token.kind for token in row.tokens] == ["given", "learnt", "end not learnt"]


def test_bytes_that_are_no_character_are_shown_one_by_one() -> None:
    half = Example((Row(ids("a"), ids("é")[:1], np.ones(1, np.bool_)),), "a:1")
    [row] = seen([half]).shown
    assert [token.text for token in row.tokens] == ["a", "\N{REPLACEMENT CHARACTER}"]


def test_what_a_person_should_look_at() -> None:
    rows = [example("a", "b", "x:1"), example("a", "b", "x:2"), example("a", "c", "x:3", end=False)]
    one = seen(rows)
    assert (one.repeated, list(one.repeated_at), one.endless) == (1, ["x:2 is x:1"], 1)
    told = {name: (value, bad) for name, value, bad in facts_of(one)}
    assert told["learnt part without an end"] == ("1 rows: the model does not learn to end there", True)
    assert told["the same as a row before"] == ("1: x:2 is x:1", True)
    assert told["tokens that carry loss"] == ("62.5 %", False) and one.loss_share == 5 / 8
    assert {name for name, _, bad in facts_of(seen([example("a", "b", "x:1")])) if bad} == set()


def test_the_histogram_has_every_row_once() -> None:
    rows = [example("a" * size, "b", f"x:{size}") for size in (1, 2, 2, 40, 200)]
    one = seen(rows)
    assert sum(count for _, _, count in one.lengths) == 5 and one.lengths[0][0] == 3 and one.lengths[-1][1] >= 202
    assert all(low <= high for low, high, _ in one.lengths) and (one.shortest, one.median, one.longest) == (3, 4, 202)


def test_the_command_needs_no_weights_and_no_engine(tmp_path: Path, posttrain: Command) -> None:
    """A recipe for GPUs, on a machine that has its tokenizer and config only; and a page on which nothing acts."""
    TOKENIZER.save_pretrained("base")
    Qwen2Config(vocab_size=512, hidden_size=32, num_hidden_layers=1, num_attention_heads=1).save_pretrained("base")
    hostile = "</pre><script>alert(1)</script>\x1b[2J"
    data = write(tmp_path / "rows.jsonl", {"prompt": hostile, "answer": "1", "note": "x"}, {"prompt": hostile, "answer": "1"})
    path = recipe(
        model={"name": "base"},
        algorithm={"name": "grpo"},
        data={"train": {"path": data}, "eval": {"test": {"path": data}}},
        rewards=[{"name": "exact_match"}],
        rollout={"engine": "vllm", "questions_per_step": 2, "max_tokens": 8},
        eval={"samples": 1},
        training={"max_steps": 2, "rows_per_step": 16},
    )
    code, out, err = posttrain("data", path, "--rows", "1", "--html", "page.html")
    assert code == 0, err
    assert "train: 2 rows" in out and "note: 1" in out and "test/problems and" not in out and "\x1b[2J" not in out
    assert "test and the training set: 2 of 2 questions are the same" in " ".join(out.split())
    text = Path("page.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and "<script>alert(1)</script>" in page.text and "\x1b" not in text
    assert "default-src 'none'" in text
    assert not Path("out").exists()


def test_wrong_turns(tmp_path: Path, posttrain: Command) -> None:
    stages = [{"name": "first", "algorithm": {"name": "sft"}}]
    path = recipe(stages=stages)
    code, _, err = posttrain("data", path, "--stage", "second")
    assert code == 2 and "the recipe has first" in err
    code, out, _ = posttrain("data", path, "--rows", "1")
    assert code == 0 and "stage first" in out
    bad = write(tmp_path / "bad.jsonl", {"prompt": "a"})
    code, _, err = posttrain("data", recipe(data={"train": {"path": bad}}))
    assert code == 3 and "the columns" in err
    changed = {**SCRATCH, "name": "nowhere/at/all", "from_scratch": None, "tokenizer": None}
    assert posttrain("data", recipe(model=changed))[0] == 4


def test_rows_under_several_prompts_are_called_by_their_places() -> None:
    rows = [example(prompt, answer, "").rows[0] for prompt in "ab" for answer in "cd"]
    [unit] = [Example(tuple(rows), "x:1", crossed=True)]
    assert [row.title for row in seen([unit]).shown] == [f"prompt {i}, completion {j}" for i in (1, 2) for j in (1, 2)]
    assert [row.title for row in seen([Example(tuple(rows[:2]), "x:1")]).shown] == ["chosen", "rejected"]
