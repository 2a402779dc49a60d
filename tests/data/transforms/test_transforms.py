"""What all transforms are: a row's own, of the set as a set, told where a row is left out; and trained as any other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from data.test_encoder import config as encoding
from data.test_encoder import tokenizer
from posttrain.data.reader import Reader
from posttrain.data.sources import Record
from posttrain.data.transforms import TRANSFORMS, AnyTransform, TransformConfig, Transforms
from posttrain.data.transforms._chain import COUNTER
from posttrain.errors import DataError, RecipeError
from posttrain.estimator.batch import Batch
from posttrain.model.layout.make import make_layout
from posttrain.model.proofs.trials import usable_layout
from posttrain.model.scoring import Scorer
from posttrain.settings.data import Encoding
from posttrain.settings.doors.kinds import name_of
from tiny import make_model

OPTIONS: dict[str, dict[str, Any]] = {
    "control_token": {"column": "score", "high": "good ", "low": "bad ", "without": 0.3},
    "as_text": {},
    "denoise": {"sentinel": "#{number}", "denoisers": [{"mode": "r ", "span": 2, "rate": 0.3}, {"mode": "s "}]},
    "source_tag": {"column": "source", "copies": 2},
    "cloze": {"gap": "_", "per_text": 2},
    "demonstrations": {"k": 2},
    "documents": {"k": 2, "oracle": 0.5},
    "yes_no": {"questions": {"a": "is it a", "b": "is it b", "c": "is it c"}},
    "feedback": {},
    "corrupt": {"rate": 0.3},
    "roles": {"roles": ["a", "c"]},
    "mask_failed_calls": {},
    "key_tokens": {"format": "tagged", "tools": "offered"},
}
"""Of each, with which it may do something else to each row."""
NEEDED = {
    "control_token": ("prompt", "completion", "score"),
    "as_text": ("prompt", "completion"),
    "denoise": ("text",),
    "source_tag": ("text", "source"),
    "cloze": ("text",),
    "demonstrations": ("prompt", "completion"),
    "documents": ("prompt", "completion", "document"),
    "yes_no": ("prompt", "class"),
    "feedback": ("prompt", "completion", "feedback"),
    "corrupt": ("text",),
    "roles": ("messages",),
    "mask_failed_calls": ("messages",),
    "key_tokens": ("prompt", "completion", "offered"),
}
AS_THEY_ARE = ("as_text", "feedback", "roles", "mask_failed_calls", "key_tokens")
"""No chance is in what they make."""
WORDS = ("cat", "sat", "mat", "rat", "the", "on", "saw", "a", "and", "ran")


def rows(name: str, number: int = 24) -> list[Record]:
    def row(i: int) -> dict[str, Any]:
        rng = random.Random(i)
        said = {key: " ".join(rng.choices(WORDS, k=5)) for key in ("prompt", "completion", "document", "feedback")}
        text = ". ".join(" ".join(rng.choices(WORDS, k=4)) for _ in range(4)) + "."
        answers = [{"role": "assistant", "name": role, "content": said["completion"]} for role in "abc"]
        asked = {"role": "user", "content": said["prompt"]}
        messages = [asked, answers[0], {**asked, "error": i % 2 == 0}, answers[1], asked, answers[2]]
        others = {"score": rng.random(), "source": f"s{i % 3}", "class": "abc"[i % 3]}
        return {**said, **others, "text": text, "messages": messages, "offered": [{"name": "cat"}]}

    return [Record(f"data.jsonl:{i}", {key: row(i)[key] for key in NEEDED[name]}) for i in range(number)]


def made(given: Sequence[Any], records: Sequence[Record], seed: int = 0, train: Sequence[Record] = ()) -> list[Record]:
    configs = TypeAdapter(list[AnyTransform]).validate_python(given)
    return list(Transforms(configs, seed=seed, train=lambda: train or records).through(records, "train"))


def of(config: type[TransformConfig], records: Sequence[Record], **options: Any) -> dict[str, dict[str, Any]]:
    if config.package is not None:
        pytest.importorskip(config.package)
    given = [{"name": name_of(config), **OPTIONS[name_of(config)]}]
    return {one.where: one.columns for one in made(given, records, **options)}


@pytest.mark.parametrize("config", TRANSFORMS, ids=name_of)
def test_a_runs_own_recipe_with_all_of_its_keys_is_read_again(config: type[TransformConfig]) -> None:
    one = config.model_validate(OPTIONS[name_of(config)])
    assert config.model_validate(one.model_dump(mode="json")) == one


def test_all_transforms_are_tested() -> None:
    assert OPTIONS.keys() == NEEDED.keys() == {name_of(config) for config in TRANSFORMS}


@pytest.mark.parametrize("config", TRANSFORMS, ids=name_of)
def test_what_becomes_of_a_row_is_its_own(config: type[TransformConfig]) -> None:
    """Of the same rows in another order, and of a half of them where all are known, as two processes would read them."""
    records = rows(name_of(config))
    whole = of(config, records)
    assert len(whole) >= len(records) and whole == of(config, records)
    assert of(config, random.Random(1).sample(records, len(records))) == whole
    halves = of(config, records[::2], train=records) | of(config, records[1::2], train=records[::-1])
    assert halves == whole
    moved = [Record(f"/elsewhere/{one.where}", one.columns) for one in records]
    assert {where.removeprefix("/elsewhere/"): row for where, row in of(config, moved).items()} == whole
    assert config.package is not None or name_of(config) in AS_THEY_ARE or of(config, records, seed=1) != whole


@pytest.fixture(scope="module")
def model() -> tuple[Any, Any]:
    return make_model()


@pytest.mark.parametrize("config", TRANSFORMS, ids=name_of)
@torch.no_grad()
def test_packed_rows_are_the_padded_ones(config: type[TransformConfig], model: tuple[Any, Any]) -> None:
    """The log-prob of each token that carries loss, also where prompts stand once for several rows."""
    policy, tokens = model
    records = [Record(where, columns) for where, columns in of(config, rows(name_of(config), 6)).items()]
    read = [row for one in Reader(Encoding(), tokens, (tokens.eos_token_id,)).examples(records)[0] for row in one.rows]
    mask = torch.zeros(len(read), max(len(row.mask) for row in read), dtype=torch.bool)
    for i, row in enumerate(read):
        mask[i, : len(row.mask)] = torch.from_numpy(row.mask)
    assert len(read) >= 6 and mask.any(1).all()
    found = {}
    for name in ("padded", "packed", "shared"):
        assert usable_layout(policy, name, len(tokens)) == name
        inputs = make_layout(name, pad_id=0).inputs(read, Batch(loss_mask=mask))
        found[name] = Scorer("whole", 1.0).score(policy, inputs, mask).logp[mask]
    torch.testing.assert_close(found["packed"], found["padded"], rtol=0, atol=1e-11)
    torch.testing.assert_close(found["shared"], found["padded"], rtol=0, atol=1e-11)


def test_they_are_done_in_order_and_each_says_which_sets_are_its() -> None:
    one = [Record("a.jsonl:3", {"prompt": "p", "completion": "c", "source": "s"})]
    first = {"name": "control_token", "always": "x ", "sets": ["train", "eval"]}
    both = [first, {"name": "control_token", "always": "y "}, {"name": "source_tag", "column": "source"}]
    [found] = made(both, one)
    assert found.columns == {"prompt": "y x p", "completion": "c || s", "source": "s"} and found.where == "a.jsonl:3"
    assert "source" in found.read
    configs = TypeAdapter(list[AnyTransform]).validate_python(both)
    [asked] = Transforms(configs, seed=0, train=lambda: []).through(one, "eval")
    assert asked.columns == {"prompt": "x p", "completion": "c", "source": "s"}


def test_several_rows_of_one_are_called_by_its_place_and_a_number() -> None:
    text = [Record("a.jsonl:3", {"text": "A b. C d. E f.", "source": "s"})]
    given = [{"name": "source_tag", "column": "source", "copies": 3}, {"name": "cloze", "per_text": 2}]
    assert [one.where for one in made(given, text)] == [f"a.jsonl:3#{i}#{j}" for i in (1, 2, 3) for j in (1, 2)]


def test_a_row_of_which_nothing_is_made_is_noted_and_one_that_cannot_be_used_is_treated_as_bad() -> None:
    records = [Record(f"a.jsonl:{i}", {"text": text}) for i, text in enumerate(("one two three", "alone"), 1)]
    records += [Record("a.jsonl:3", {"prompt": "p"}), Record("a.jsonl:4", {}, fault="not JSON")]
    found = made([{"name": "cloze", "gap": "_"}], records)
    assert [one.left_out is None for one in found] == [True, False, True, True]
    assert found[3].fault == "not JSON"
    reader = Reader(encoding(on_bad_row="skip"), tokenizer(), (1,))
    kept, report = reader.examples([one for one in found if one.where != "a.jsonl:1"] + [Record("b", {"text": "ab"})])
    assert len(kept) == 1 and report.counters == {COUNTER: 1, "bad": 2}
    assert report.notes[0] == (
        COUNTER,
        "a.jsonl:2",
        "data.transforms.0 (cloze): its text has 1 words, too few for a gap of 1 and something beside it",
    )
    with pytest.raises(
        DataError, match=r"a.jsonl:3: data.transforms.0 \(cloze\): it reads the column text, which the row does"
    ):
        Reader(encoding(), tokenizer(), (1,)).examples(found[2:3])


def test_columns_that_a_transform_has_read_are_not_told_of() -> None:
    given = [{"name": "control_token", "column": "score", "high": "g ", "low": "b "}]
    records = [Record(f"row {i}", {"prompt": "p", "completion": "c", "score": i, "more": 1}) for i in range(3)]
    assert Reader(encoding(), tokenizer(), (1,)).examples(made(given, records))[1].unread == {"more": 3}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "control_token"}, "give either column"),
        ({"name": "control_token", "column": "a", "always": "b"}, "give either column"),
        ({"name": "control_token", "column": "a", "high": "b"}, "high and low belong together"),
        ({"name": "control_token", "column": "a", "high": "b", "low": "b"}, "nothing would tell them apart"),
        ({"name": "control_token", "column": "a", "threshold": 1}, "give high and low"),
        ({"name": "control_token", "column": "a", "prefix": "b"}, "{value} must stand in it"),
        ({"name": "denoise", "denoisers": [{"mode": "a", "span": 3}]}, "span and rate belong together"),
        ({"name": "denoise", "denoisers": []}, "at least 1 item"),
        ({"name": "cloze", "answer": "a", "words": 2}, "leave words and per_text out"),
        ({"name": "cloze", "sets": []}, "at least 1 item"),
        ({"name": "cloze", "sets": ["eval", "eval"]}, "each is named once"),
        ({"name": "as_text", "template": "{}"}, "its fields must be names of columns"),
        ({"name": "demonstrations", "k": 0}, "greater than or equal to 1"),
    ],
)
def test_bad_options(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TypeAdapter(AnyTransform).validate_python(given)


OWN = """
def upper(columns, rng, times=1):
    if columns["prompt"] == "bad":
        raise KeyError("no")
    if columns["prompt"] == "drop":
        return None
    if columns["prompt"] == "odd":
        return 3
    return [{**columns, "prompt": columns["prompt"].upper() + str(rng.randrange(10**6))}] * times
"""


def test_a_function_of_yours(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    given = {"name": "function", "path": f"{tmp_path}/own.py:upper", "options": {"times": 2}}
    records = [Record(f"row {text}", {"prompt": text}) for text in ("a", "bad", "drop", "odd")]
    first, second, bad, dropped, odd = made([given], records)
    assert (first.where, second.where) == ("row a#1", "row a#2") and first.columns["prompt"].startswith("A")
    assert first.columns == made([given], records[:1])[0].columns != made([given], records[:1], seed=1)[0].columns
    assert bad.fault == "data.transforms.0 (upper): it raised KeyError: 'no'"
    assert dropped.left_out == (COUNTER, "data.transforms.0 (upper): it makes nothing of the row")
    assert odd.fault == "data.transforms.0 (upper): it gave 3: a mapping of columns, a list of these, or None is expected"
    with pytest.raises(RecipeError, match=r"data.transforms.0: .*unexpected keyword argument 'often'"):
        made([{**given, "options": {"often": 2}}], records)
