"""Data of others through the command: read whole and told of, or refused with the file, its line and the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recipes import Command, recipe

ALPACA = [{"instruction": "1+", "input": f"{i}=", "output": str(i + 1), "id": i} for i in range(6)]
KTO = '{"prompt": "1", "completion": "2"}\n{"prompt": "1", "completion": "3", "label": false}\n'


def data(train: Any, **changes: Any) -> dict[str, Any]:
    return {"train": train, "chat_template": False, **changes}


def test_an_alpaca_file_is_read_by_its_shape_and_what_nothing_reads_is_told_once(posttrain: Command) -> None:
    Path("rows.json").write_text(json.dumps(ALPACA))
    made = recipe(data=data({"path": "rows.json"}), training={"epochs": 1, "rows_per_step": 4})
    code, out, err = posttrain("run", made, "--dry-run")
    assert code == 0 and "{'train': {'alpaca': 6}}" in out, err
    code, out, err = posttrain("run", made)
    assert code == 0, err
    told = [json.loads(line) for line in Path("out/warnings.jsonl").read_text().splitlines()]
    assert [one["rule"] for one in told] == ["unread-columns"] and "id (all rows)" in told[0]["sentence"]
    steps = [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    assert steps[0]["data/train/rows"] == 6 and [step["step"] for step in steps] == [1, 2]
    assert steps[0]["step/tokens"] == 2 * steps[1]["step/tokens"]  # four rows, then the two that are left
    code, _, err = posttrain("run", recipe(data=data({"path": "rows.json", "unused": ["id"]}), output_dir="silent"))
    assert code == 0 and not Path("silent/warnings.jsonl").exists(), err


@pytest.mark.parametrize(
    ("train", "content", "code", "says"),
    [
        ({"path": "a.jsonl"}, KTO, 3, "a.jsonl:2: its label is false"),
        (
            {"path": "a.jsonl"},
            '{"prompt": "1", "completion": "2", "prompt": "3"}',
            3,
            "a.jsonl:1: the key 'prompt' stands twice",
        ),
        ({"path": "a.jsonl"}, '{"text": 1}', 3, "a.jsonl:1: text must be text, not int"),
        ({"path": "a.csv"}, "prompt;completion\n1;2\n", 3, "a.csv:1: values are separated by ';'"),
        ([{"path": "a.jsonl"}, {"path": "b.jsonl"}], "", 2, "data.train: one source is expected; several are mix"),
        ({"path": "a.jsonl", "format": "sharegtp"}, "", 2, "data.train.format: input should be 'messages', 'sharegpt' or"),
    ],
)
def test_what_cannot_be_trained_on_ends_with_its_place(
    posttrain: Command, train: Any, content: str, code: int, says: str
) -> None:
    if isinstance(train, dict):
        Path(train["path"]).write_text(content)
    found, _, err = posttrain("run", recipe(data=data(train)))
    assert (found, err.count("error:")) == (code, 1) and says in err, err
    assert not Path("out").exists()


def test_a_chat_template_of_ones_own_is_said_to_belong_to_the_tokenizer(posttrain: Command) -> None:
    code, _, err = posttrain("validate", recipe(data={"train": {"task": "chain", "rows": 8}, "chat_template": "my.jinja"}))
    assert code == 2 and "data.chat_template: true or false: a template of your own belongs to the tokenizer" in err
