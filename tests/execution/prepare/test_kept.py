"""Rows that are too many for memory lie on disk: once for all processes, the same rows, and found by a later start."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from posttrain.data.overlap import Overlaps
from posttrain.data.rows import DataReport, Example
from posttrain.data.rows.on_disk import ROWS, RowsOnDisk
from posttrain.data.rows.together import in_memory
from posttrain.errors import DataError
from posttrain.execution.prepare.data import kept
from posttrain.execution.prepare.data.kept import FRESH, WHOLE, Shelf, size
from posttrain.execution.prepare.preparation import Prepared, prepare
from posttrain.model.proofs.tokens import tokenizer_identity
from posttrain.recipe.recipe import load_recipe
from posttrain.settings.doors.permissions import Permissions
from posttrain.telling import hearing
from recipes import recipe, write

MODEL = {
    "from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1},
    "tokenizer": {"characters": "0123456789+= is"},
}
ROOM = 12_000
"""Bytes, in which a part of the rows finds room."""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "kept"))
    rows = [{"prompt": f"{i}+1=", "completion": str(i + 1), "chosen": str(i + 1), "rejected": "0"} for i in range(10, 50)]
    write(Path("rows.jsonl"), *rows, {"prompt": "1+1=", "completion": "2" * 99, "chosen": "2", "rejected": "3" * 99})
    write(Path("texts.jsonl"), *({"text": f"{i}" * 10} for i in range(10, 40)))


def folders() -> list[str]:
    return sorted(path.name for path in Path("kept/posttrain").glob("*"))


def prepared(room: int | None = None, permissions: Permissions = Permissions(), **changes: Any) -> Prepared:  # noqa: B008
    data = {"chat_template": False, "max_tokens": 64, "train": {"path": "rows.jsonl"}, **changes.pop("data", {})}
    values = {"model": MODEL, "data": data, "training": {"max_steps": 4, "rows_per_step": 4}, **changes}
    with pytest.MonkeyPatch.context() as patch:
        if room is not None:
            patch.setattr(kept, "IN_MEMORY", room)
        return prepare(load_recipe(recipe(**values)), permissions)


def told(made: Prepared) -> dict[str, Any]:
    """Its plan, without where its rows lie, and what this machine has free."""
    passing = ("rows on disk", "memory of the device")
    return {name: value for name, value in made.plan().items() if name not in passing}


MIX = {"mix": {"rows": {"path": "rows.jsonl"}, "texts": {"path": "texts.jsonl", "weight": 2}}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"algorithm": {"name": "dpo"}},
        {"data": {"train": {"path": "texts.jsonl"}, "window": {"length": 8}}},
        {"data": {"train": {**MIX, "unit": "tokens"}, "eval": {"held": {"path": "texts.jsonl", "limit": 3}}}},
        {"data": {"train": MIX, "eval_share": 0.2, "decontaminate": {"n": 2, "on_hit": "drop"}}},
        {"data": {"transforms": [{"name": "as_text"}]}},
    ],
    ids=["sft", "dpo", "texts", "mixture", "shares", "transformed"],
)
def test_a_start_with_rows_on_disk_is_one_with_rows_in_memory_and_so_is_the_next(changes: dict[str, Any]) -> None:
    with hearing() as heard:
        before = prepared(**changes)
    assert not folders() and in_memory(before.sets.train)
    for number in range(2):
        with hearing() as also:
            made = prepared(ROOM if number else 0, **changes)
        assert not in_memory(made.sets.train)
        assert made.facts() == before.facts()
        assert told(made) == told(before) and made.longest == before.longest
        assert [one.where for one in made.sets.train] == [one.where for one in before.sets.train]
        assert [one.source for one in made.sets.train] == [one.source for one in before.sets.train]
        assert made.sets.first_rows == before.sets.first_rows and made.sets.overlaps == before.sets.overlaps
        for name, report in before.sets.reports.items():
            there = made.sets.reports[name]
            assert (list(there.notes), there.metrics(name)) == (list(report.notes), report.metrics(name))
        assert [one for one in also if one.rule != "rows-on-disk"] == heard
        where = made.plan()["rows on disk"]
        assert all(line.startswith("found" if number else "made in") for line in where.values()), where
        assert all(Path(line.split(": ", 1)[1].split(", ")[0]).is_dir() for line in where.values())
    assert len(folders()) == len(where)


def test_what_has_room_stays_in_memory_and_sources_share_the_room() -> None:
    rows: Any = prepared(10**6, data={"train": MIX}).sets.train
    assert in_memory(rows) and not folders()
    first = sum(size(one) for one in rows if one.source == "rows")
    both = prepared(first + 1, data={"train": MIX})
    assert list(both.plan()["rows on disk"]) == ["data.train.mix.texts"]


def found(**changes: Any) -> bool:
    before = folders()
    prepared(0, **changes)
    return folders() == before


def test_what_changes_no_row_changes_nothing() -> None:
    prepared(0)
    assert found(seed=3) and found(training={"max_steps": 2, "learning_rate": 1e-3}) and found(output_dir="elsewhere")
    assert found(data={"date": "2020-01-01"})  # which no template writes here
    mixed = {"train": {"mix": {"rows": {"path": "rows.jsonl"}, "texts": {"path": "texts.jsonl"}}}}
    assert not found(data=mixed)
    mixed["train"]["mix"]["texts"]["weight"] = 3  # type: ignore[assignment]
    assert found(data={**mixed, "train": {**mixed["train"], "unit": "tokens"}})


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"max_tokens": 60}},
        {"data": {"prompt_template": "{prompt} "}},
        {"data": {"train": {"path": "rows.jsonl", "limit": 30}}},
        {"data": {"on_long_completion": "cut"}},
        {"data": {"eval": {"held": {"path": "texts.jsonl"}}}},
        {"data": {"transforms": [{"name": "as_text"}]}},
        {"model": {**MODEL, "tokenizer": {"characters": "=0123456789+ is"}}},
        {"model": {**MODEL, "from_scratch": {**MODEL["from_scratch"], "max_position_embeddings": 63}}},
        {"algorithm": {"name": "dpo"}},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_what_changes_rows_makes_them_anew(changes: dict[str, Any]) -> None:
    prepared(0)
    assert not found(**changes)
    assert found(**changes) and found()


def test_files_and_code_that_changed_make_them_anew() -> None:
    prepared(0)
    path = Path("rows.jsonl")
    text, state = path.read_text(), path.stat()
    path.write_text(text.replace("10+1=", "10+2="))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert not found()
    Path("own.py").write_text("def own(columns, rng):\n    return {**columns, 'completion': '7'}\n")
    own = {"data": {"transforms": [{"name": "function", "path": "own.py:own"}]}, "permissions": Permissions(code=True)}
    assert not found(**own) and found(**own)
    Path("own.py").write_text("def own(columns, rng):\n    return {**columns, 'completion': '8'}\n")
    assert not found(**own)


def test_a_tokenizer_is_known_by_what_it_saves_wherever_it_was_read(tmp_path: Path) -> None:
    tokenizer = prepared().tokenizer
    identities = {tokenizer_identity(tokenizer)}
    for name in ("one", "other"):
        tokenizer.save_pretrained(tmp_path / name)
        identities.add(tokenizer_identity(AutoTokenizer.from_pretrained(tmp_path / name)))
    read = AutoTokenizer.from_pretrained(tmp_path / "one")
    assert len(identities) <= 2 and tokenizer_identity(read) in identities
    read.chat_template = "{{ messages[0].content }}"
    assert tokenizer_identity(read) not in identities


def test_of_rows_that_were_not_written_to_their_end_nothing_is_read() -> None:
    good = Path("rows.jsonl").read_text()
    Path("rows.jsonl").write_text(good + '{"prompt": "1+1="}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:42"):
        prepared(0)
    [folder] = folders()
    assert [path.name for path in (Path("kept/posttrain") / folder).iterdir()] == [".lock"]
    Path("rows.jsonl").write_text(good)
    prepared(0)
    [whole] = list(Path("kept/posttrain").glob(f"*/{WHOLE}"))
    whole.rename(whole.with_name(FRESH))  # as of a process that was killed in its last moment
    made = prepared(0)
    assert made.plan()["rows on disk"]["data.train"].startswith("made") and not whole.with_name(FRESH).exists()
    (whole / ROWS).write_bytes((whole / ROWS).read_bytes()[:-1])
    with hearing() as heard:
        made = prepared(0)
    assert made.plan()["rows on disk"]["data.train"].startswith("made")
    assert [one.rule for one in heard if "made anew" in one.sentence] == ["rows-on-disk"]
    assert [path.name for path in whole.parent.iterdir() if path.name != ".lock"] == [WHOLE]


def test_a_place_that_cannot_be_written_to_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("")
    monkeypatch.setenv("HF_DATASETS_CACHE", "file")
    with pytest.raises(DataError, match=r"cannot be written to file/posttrain/\w+: .*HF_DATASETS_CACHE"):
        prepared(0)


def test_of_two_processes_one_encodes_and_the_other_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "IN_MEMORY", 0)
    examples: list[Example] = list(prepared(10**6).sets.train)  # type: ignore[arg-type]
    reached, go = threading.Event(), threading.Event()
    done: dict[str, Any] = {}
    reads: list[str] = []

    def start(name: str) -> None:
        def read(away: Any) -> tuple[list[Example], DataReport]:
            report, rows = DataReport(rows=len(examples)), list[Example]()
            for number, one in enumerate(examples):
                rows.append(one)
                away(rows, report)
                reads.append(name)
                if number == 1:
                    reached.set()
                    go.wait(30)
            return rows, report

        done[name] = Shelf(Overlaps({}, words=2)).rows("data.train", lambda: {"same": 1}, read)

    one, other = (threading.Thread(target=start, args=(name,)) for name in ("one", "other"))
    one.start()
    assert reached.wait(30)
    other.start()
    other.join(0.3)
    assert other.is_alive() and set(reads) == {"one"}  # it waits for the lock
    go.set()
    one.join(30)
    other.join(30)
    assert set(reads) == {"one"} and len(reads) == len(examples)
    assert all(isinstance(rows, RowsOnDisk) and len(rows) == len(examples) for rows, _ in done.values())
