"""Rounds by the command: what each is trained on, what is kept, going on, and steps that ask some of the rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from execution.test_generated_runs import MANY, ROWS, VOTED, collecting, generate, lines
from recipes import Command, in_cells

STILL = {"max_steps": 1, "rows_per_step": 2, "learning_rate": 0.0}
MOVING = {"max_steps": 2, "rows_per_step": 2, "learning_rate": 0.1}
OWN = {**MANY, "writer": "previous", "keep": ["right", "finished", "unique", {"per_question": 2}]}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def start(posttrain: Command) -> dict[str, Any]:
    """A model that has a folder."""
    assert posttrain("run", collecting(data={"collect": None}, output_dir="begun"))[0] == 0
    return {"name": "begun/final"}


def rows_of(*folders: str) -> list[dict[str, Any]]:
    return [row for folder in folders for row in lines(f"{folder}/made.jsonl")]


def once(rows: list[dict[str, Any]]) -> int:
    return len({tuple(sorted(row.items())) for row in rows})


def test_rounds_from_base_learn_from_what_each_model_before_wrote(posttrain: Command, start: dict[str, Any]) -> None:
    made = collecting(
        generate(**OWN), model=start, training=MOVING, rounds={"times": 3, "from": "base", "data": "accumulate"}
    )
    code, _, err = posttrain("run", made)
    assert code == 0, err
    folders = ["out/1-round1", "out/2-round2", "out/3-round3"]
    writers = [lines(f"{folder}/collected.jsonl")[0]["writer"] for folder in folders]
    assert len(set(writers)) == 3
    for number, folder in enumerate(folders, 1):
        rows = rows_of(*folders[:number])
        measured = lines(f"{folder}/metrics.jsonl")[0]
        assert measured["data/train/rows"] == measured["data/rounds/rows"] == once(rows) > 0
        assert measured["data/rounds/repeated"] == len(rows) - once(rows)
    assert all(set(row) == {"prompt", "completion", "answer", "topic", "reward"} for row in rows_of(*folders))
    assert Path("out/final/model.safetensors").read_bytes() == Path("out/3-round3/final/model.safetensors").read_bytes()


def test_rounds_go_on_where_they_were(posttrain: Command, start: dict[str, Any]) -> None:
    rounds = {"times": 2, "data": "accumulate"}
    made = collecting(generate(**OWN), model=start, training=MOVING, rounds=rounds)
    assert posttrain("run", made)[0] == 0
    whole = Path("out/final/model.safetensors").read_bytes()
    for lost in (["final", "2-round2"], ["final", "2-round2/final", "2-round2/made.jsonl"]):
        for name in lost:
            path = Path("out", name)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        code, _, err = posttrain("run", made)
        assert code == 0 and Path("out/final/model.safetensors").read_bytes() == whole, err
    shutil.rmtree("out/2-round2")
    shutil.rmtree("out/final")
    Path("out/1-round1/made.jsonl").unlink()
    code, _, err = posttrain("run", made)
    assert code == 3 and "made.jsonl: the rows that round 1 has made are not there" in err


def test_rejection_sampling_accumulates_as_well(posttrain: Command) -> None:
    sampled = {"rejection_sampling": {"k": 64, "max_tokens": 2, "per_question": 2}}
    made = collecting(sampled, training=STILL, rounds={"times": 2, "data": "accumulate"})
    code, _, err = posttrain("run", made)
    assert code == 0, err
    rows = rows_of("out/1-round1", "out/2-round2")
    assert lines("out/2-round2/metrics.jsonl")[0]["data/train/rows"] == once(rows) < len(rows)


def test_of_some_questions_the_own_answer_and_of_the_others_the_hinted_or_the_given(posttrain: Command) -> None:
    """S3FT, STaR: a question has one row, by its own right answer, else by one with a hint, else as it was given."""
    first = generate(**{**MANY, "n": 1, "source": "fallback"})
    hinted = generate(**{**MANY, "n": 2, "for": "source", "prompt_template": "{answer}{prompt}", "source": "fallback"})
    hinted["generate"]["keep"] = ["right", {"per_question": 1}]
    code, _, err = posttrain("run", collecting(first, hinted, training=STILL))
    assert code in (0, 3), err
    asked, again = lines("out/collected.jsonl"), lines("out/collected-2.jsonl")
    unsolved = [one["where"] for one in asked if not any(a["right"] and a["finished"] for a in one["answers"])]
    assert [one["where"] for one in again] == unsolved and 0 < len(unsolved) <= len(ROWS)
    assert lines("out/metrics.jsonl")[0]["data/train/rows"] == len(ROWS)
    made = rows_of("out")
    assert len(made) == len(ROWS) - len(unsolved) + sum(any(a["right"] for a in one["answers"]) for one in again)
    assert all(row["prompt"] in {one["prompt"] for one in ROWS} for row in made)  # the hint is not learnt


def test_where_a_step_has_none_to_ask_rows_pass_it_by(posttrain: Command) -> None:
    every = generate(n=1, keep=[], max_tokens=1)
    code, _, err = posttrain("run", collecting(every, generate(**{**MANY, "for": "source"}), training=STILL))
    assert code == 0, err
    metrics = lines("out/metrics.jsonl")[0]
    assert metrics["data/collect-2/questions"] == 0 and metrics["data/train/rows"] == len(rows_of("out"))


def test_a_column_is_written_for_a_later_step_and_a_transform(posttrain: Command) -> None:
    """Critique fine-tuning: an answer, what is said of it, and the learning of that after both."""
    answered = generate(**{"as": "column", "column": "draft", "n": 16, "keep": [], "source": "keep"})
    said = generate(
        **{"as": "column", "column": "said", "for": "made", "n": 8, "prompt_template": "{prompt}{draft}", "keep": []}
    )
    told = [{"name": "feedback", "column": "said", "template": "{prompt}{draft}", "sets": ["train"]}]
    rows = [row for row in ROWS if row["prompt"] != "0="]
    made = collecting(answered, said, rows=rows, data={"transforms": told}, training=STILL)
    code, _, err = posttrain("run", made)
    assert code == 3 and "reads the column draft, which the row does not have" in err  # source: keep leaves rows without
    answered["generate"]["source"] = "leave_out"
    made = collecting(answered, said, rows=rows, data={"transforms": told}, training=STILL, output_dir="told")
    code, _, err = posttrain("run", made)
    assert code == 0, err
    kept = rows_of("told")
    drafts = {(one["where"], a["text"]) for one in lines("told/collected.jsonl") for a in one["answers"]}
    assert kept and {row["draft"] for row in kept} <= {text for _, text in drafts}
    assert all(row["completion"] == "1" for row in kept)  # columns of the data stay, until the transform


def test_a_verdict_is_a_column_that_transforms_and_weights_read(posttrain: Command) -> None:
    """Conditional training on own answers, right and wrong; and reward-weighted regression on the same."""
    every = generate(**{**MANY, "keep": ["finished"]})
    control = {"name": "control_token", "column": "reward", "high": "1", "low": "0", "without": 0.0, "sets": ["train"]}
    code, _, err = posttrain("run", collecting(every, data={"transforms": [control]}, training=STILL))
    assert code == 0, err
    assert {row["reward"] for row in rows_of("out")} == {0.0, 1.0}
    code, _, err = posttrain("run", collecting(every, algorithm="rwr", output_dir="weighed", training=STILL))
    assert code == 0, err
    assert rows_of("weighed") == rows_of("out")


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({"as": "column"}, "column: it is the name of the column that as: column writes"),
        ({"as": "completion", "column": "x"}, "column: it is the name of the column that as: column writes"),
        ({"as": "column", "column": "a b"}, "letters, digits and _ are expected"),
        ({"as": "column", "column": "completion"}, "completion has a form of its own: as: completion"),
        ({"as": "column", "column": "x"}, "column: nothing reads x"),
        (
            {"for": "made", "as": "column", "column": "topic"},
            "for: made asks what a step before has made, and this is the first",
        ),
        ({"for": "made"}, "for: made asks what a step before has made, and this is the first"),
        ({"writer": "previous"}, "previous is neither self, nor one of model.teachers"),
    ],
)
def test_steps_that_cannot_be_are_refused(posttrain: Command, step: dict[str, Any], told: str) -> None:
    code, _, err = posttrain("validate", collecting(generate(**step)))
    if code == 0:
        code, _, err = posttrain("run", collecting(generate(**step)), "--dry-run")
    assert code == 2 and told in err, err


def test_a_plan_tells_the_first_round_and_how_many_there_are(posttrain: Command) -> None:
    made = collecting(generate(**{**VOTED, "keep": ["right"]}), rounds={"times": 4})
    code, out, err = posttrain("run", made, "--dry-run")
    assert code == 0 and "4, each from the model that the one before it has trained" in in_cells(out), (out, err)
    assert "round1: " in out and "round2: " not in out
    assert "is valid: sft, 4 times over, on qwen2 from scratch." in posttrain("validate", made)[1]


def test_one_round_is_the_recipe_itself(posttrain: Command) -> None:
    """To the last bit."""
    plain = collecting(generate(**{**MANY, "keep": ["finished"]}), training=MOVING)
    assert posttrain("run", plain)[0] == 0
    once_over = collecting(generate(**{**MANY, "keep": ["finished"]}), training=MOVING, rounds={"times": 1}, output_dir="one")
    code, _, err = posttrain("run", once_over)
    assert code == 0, err
    for name in ("collected.jsonl", "made.jsonl", "final/model.safetensors"):
        assert Path("out", name).read_bytes() == Path("one/1-round1", name).read_bytes()


@pytest.mark.system
def test_more_rounds_go_on_from_those_that_were_run(posttrain: Command) -> None:
    def of(times: int, folder: str, **changes: Any) -> str:
        rounds = {"times": times, "data": "accumulate"}
        return collecting(generate(**OWN), training={**MOVING, **changes}, rounds=rounds, output_dir=folder)

    assert posttrain("run", of(3, "whole"))[0] == 0
    assert posttrain("run", of(2, "out"))[0] == 0
    begun = Path("out/2-round2/final/model.safetensors").stat().st_mtime_ns
    code, _, err = posttrain("run", of(3, "out", learning_rate=0.2))
    assert code == 8 and "rounds.times may grow" in err
    code, _, err = posttrain("run", of(3, "out"))
    assert code == 0, err
    assert Path("out/2-round2/final/model.safetensors").stat().st_mtime_ns == begun
    for name in ("final/model.safetensors", "3-round3/made.jsonl"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()
    assert posttrain("run", of(2, "out"))[0] == 8
