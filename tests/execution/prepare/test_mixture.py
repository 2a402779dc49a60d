"""Several sources as one: their shares in rows and in tokens, replay, the share that is held out, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest
from scipy import stats

from posttrain.data.rows import Problem
from posttrain.data.sources import Record
from posttrain.errors import CheckpointError, DataError
from posttrain.execution.folder.same_recipe import RECIPE_BY_US, check_same_recipe
from posttrain.execution.prepare.mixture import reservoir
from posttrain.execution.prepare.preparation import Prepared, prepare
from posttrain.execution.prepare.presample import Sampled, filtered
from posttrain.execution.report.data_view import view
from posttrain.recipe.recipe import load_recipe
from posttrain.settings.data.collect import CollectConfig
from posttrain.settings.doors.permissions import Permissions
from posttrain.telling import hearing
from recipes import recipe, write

MODEL = {
    "from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1},
    "tokenizer": {"characters": "0123456789+="},
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("short.jsonl"), *({"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(10, 40)))
    write(Path("texts.jsonl"), *({"text": f"{i}" * 10} for i in range(10, 20)))


def prepared(steps: int = 10, stage: int | None = None, **changes: Any) -> Prepared:
    data = {"chat_template": False, **changes.pop("data")}
    whole = load_recipe(recipe(model=MODEL, data=data, training={"max_steps": steps, "rows_per_step": 4}, **changes))
    chosen = whole if stage is None else whole.stages[stage].model_copy(update={"model": whole.model})
    return prepare(chosen, Permissions())


def mix(**more: Any) -> dict[str, Any]:
    return {"train": {"mix": {"short": {"path": "short.jsonl", "weight": 3}, "texts": {"path": "texts.jsonl"}}, **more}}


def counts(made: Prepared) -> dict[str, int]:
    assert made.mixed is not None
    return dict(zip(made.mixed.names, made.mixed.counts(made.read), strict=True))


def test_texts_and_questions_are_mixed_each_by_its_own_columns_and_the_plan_says_how() -> None:
    made = prepared(data=mix(phases=[{"until": 0.5}, {"weights": {"texts": 1}}]))
    assert Counter(one.source for one in made.sets.train) == {"short": 30, "texts": 10}
    assert counts(made) == {"short": 15, "texts": 25}
    assert {name: made.sets.reports[name].rows for name in ("train/short", "train/texts")} == {
        "train/short": 30,
        "train/texts": 10,
    }
    plan = made.plan()
    assert plan["sources"] == {"short": "30 rows, 15 read (0.50 passes)", "texts": "10 rows, 25 read (2.50 passes)"}
    assert plan["shares of rows until 0.5 of the steps"] == "short 75 %, texts 25 %"
    assert plan["shares of rows until 1 of the steps"] == "texts 100 %"
    assert "passes over the data" not in plan
    short, text = (made.sets.train[i] for i in (0, 30))
    assert plan["tokens per step"] == round((15 * short.tokens + 25 * text.tokens) / 40 * 4)  # type: ignore[union-attr]
    assert {"data.train.mix.short", "data.train.mix.texts"} == made.sets.digests.keys()
    assert [one.name for one in view(made.sets, made.tokenizer, [], 1).sets] == ["train/short", "train/texts"]


def test_shares_of_tokens_are_shares_of_rows_by_what_a_row_has_of_them() -> None:
    made = prepared(steps=1000, data=mix(unit="tokens"))
    short, text = (made.sets.train[i].tokens for i in (0, 30))  # type: ignore[union-attr]
    read = counts(made)
    assert text > 2 * short
    assert read["short"] * short / (read["short"] * short + read["texts"] * text) == pytest.approx(0.75, abs=5e-4)
    assert made.plan()["shares of tokens"] == "short 75 %, texts 25 %"


def test_a_source_that_would_end_is_refused_and_one_that_does_not_is_read() -> None:
    assert counts(prepared(steps=10, data=mix(exhausted="stop"))) == {"short": 30, "texts": 10}
    with pytest.raises(DataError) as error:
        prepared(steps=11, data=mix(exhausted="stop"))
    assert str(error.value) == (
        "data.train.mix.short: the run would read 33 rows of it, and there are 30 (exhausted: stop): set fewer "
        "training.max_steps, a smaller weight, or exhausted: repeat."
    )


def test_a_source_is_named_where_it_is_empty_or_has_other_columns_or_columns_that_nothing_reads() -> None:
    write(Path("texts.jsonl"))
    with pytest.raises(DataError, match=r"data\.train\.mix\.texts: no row can be used\. The source is empty\."):
        prepared(data=mix())
    write(Path("texts.jsonl"), {"prompt": "1"})
    with pytest.raises(DataError, match=r"^texts: texts\.jsonl:1: the columns messages or text or prompt"):
        prepared(data=mix())
    write(Path("texts.jsonl"), {"text": "1", "id": 5})
    with hearing() as told:
        prepared(data=mix())
    assert any(one.sentence.startswith("data.train.mix.texts: nothing reads the columns id") for one in told)


def test_a_reservoir_draws_every_record_with_the_same_chance() -> None:
    records = [Record(str(number), {}) for number in range(20)]
    drawn = Counter(one.where for seed in range(4000) for one in reservoir(records, 5, Random(seed)))
    assert stats.chisquare([drawn[one.where] for one in records]).pvalue > 1e-3
    one = reservoir(records, 5, Random(3))
    assert len(one) == 5 and one == reservoir(iter(records), 5, Random(3)) == sorted(one, key=lambda r: int(r.where))
    assert reservoir(records, 30, Random(0)) == records


TEXTS, SHORT = ({"train": {"path": f"{name}.jsonl"}} for name in ("texts", "short"))
STAGES = [{"name": "old", "data": TEXTS}, {"name": "older", "data": TEXTS}]


def test_rows_of_earlier_stages_are_a_source_with_their_share() -> None:
    again = {"name": "new", "data": {**SHORT, "replay": {"share": 0.05, "buffer": 12}}}
    made, once_more = (prepared(steps=50, stage=2, data=SHORT, stages=[*STAGES, again]) for _ in range(2))
    assert counts(made) == {"train": 190, "replay": 10}
    kept = [one.where for one in made.sets.train if one.source == "replay"]
    assert len(kept) == 12 and {one.split(": ")[1] for one in kept} == {"1-old", "2-older"}
    assert made.plan()["shares of rows"] == "train 95 %, replay 5 %"
    assert made.sets.digests == once_more.sets.digests
    phases = [{"until": 0.5, "weights": {"texts": 1}}, {"weights": {"short": 1}}]
    mixed = {"name": "new", "data": {**mix(phases=phases), "replay": {"of": ["old"], "share": 0.25}}}
    made = prepared(steps=20, stage=1, data=SHORT, stages=[STAGES[0], mixed])
    assert counts(made) == {"short": 30, "texts": 30, "replay": 20} and made.mixed is not None
    assert [made.mixed.counts(rows)[2] for rows in (40, 80)] == [10, 20]


def test_what_a_stage_held_out_is_not_replayed_in_a_later_one() -> None:
    first = {"name": "old", "data": {**SHORT, "eval_share": 0.3}, "eval": {"samples": 0}}
    new = {"name": "new", "data": {**TEXTS, "replay": {"share": 0.5}}}
    old, later = (prepared(stage=i, data=TEXTS, stages=[first, new]) for i in (0, 1))
    again = {str(one.rows[0].completion) for one in later.sets.train if one.source == "replay"}  # type: ignore[union-attr]
    held = {str(one.rows[0].completion) for one in old.sets.held_out["train_share"]}
    assert len(again) + len(held) == 30 and not again & held and held


def test_rows_of_another_kind_are_not_replayed() -> None:
    new = {"name": "new", "data": {**SHORT, "replay": {"share": 0.5}}}
    write(Path("texts.jsonl"), {"prompt": "1+1=", "answer": "2"})
    with pytest.raises(DataError, match=r"^replay: 1-old: texts\.jsonl:1: the columns messages or text or prompt"):
        prepared(stage=1, data=SHORT, stages=[STAGES[0], new])


def share(folder: str, order: list[int]) -> set[str]:
    rows = [{"prompt": f"{i}+0=", "completion": str(i)} for i in range(100, 500)]
    write(Path(f"{folder}.jsonl"), *(rows[i] for i in order))
    made = prepared(data={"train": {"path": f"{folder}.jsonl"}, "eval_share": 0.1}, eval={"samples": 0})
    held = made.sets.held_out["train_share"]
    assert len(held) + len(made.sets.train) == len(order)
    return {str(one.rows[0].prompt.tolist()) for one in held}


def test_the_held_out_share_is_chosen_by_what_rows_say_and_is_not_trained_on() -> None:
    whole = share("one", list(range(400)))
    assert 20 <= len(whole) <= 60
    assert share("other", list(reversed(range(400)))) == whole
    assert share("fewer", list(range(200))) < whole
    write(Path("short.jsonl"), *[{"prompt": "1+1=", "completion": "2"}, {"prompt": "1+2=", "completion": "3"}] * 50)
    with pytest.raises(DataError, match="train_share"):
        prepared(data={"train": {"path": "short.jsonl"}, "eval_share": 1e-9})


def test_questions_of_the_held_out_share_are_looked_for_in_training() -> None:
    rows = [{"prompt": f"{i}+0=", "completion": str(answer)} for i in range(100, 300) for answer in (i, i + 1)]
    write(Path("short.jsonl"), *rows)
    made = prepared(data={"train": {"path": "short.jsonl"}, "eval_share": 0.1})
    [found] = made.sets.overlaps
    assert found.name == "train_share" and found.exact > 5
    dropped = {"train": {"path": "short.jsonl"}, "eval_share": 0.1, "decontaminate": {"on_hit": "drop"}}
    assert len(prepared(data=dropped).sets.train) < len(made.sets.train)


def test_a_run_of_phases_does_not_become_longer() -> None:
    for phases, longer in (([], True), ([{"until": 0.5, "weights": {"texts": 1}}, {}], False)):
        made = load_recipe(recipe(model=MODEL, data=mix(phases=phases), training={"max_steps": 4}))
        Path("recipe.yaml").write_text(RECIPE_BY_US + json.dumps(made.model_dump(mode="json")))
        more = made.model_copy(update={"training": made.training.model_copy(update={"max_steps": 8})})
        if longer:
            assert check_same_recipe(Path(), more)
        else:
            with pytest.raises(CheckpointError, match=r"data\.train\.phases are shares of training\.max_steps"):
                check_same_recipe(Path(), more)


def test_shares_are_exact_fractions_of_what_the_recipe_says() -> None:
    sources = {"short": {"path": "short.jsonl", "weight": 0.1}, "texts": {"path": "texts.jsonl", "weight": 0.3}}
    made = prepared(data={"train": {"mix": sources}})
    assert made.mixed is not None and made.mixed.phases == ((40, (1, 3)),)
    assert Fraction(*made.mixed.phases[0][1]) == Fraction(1, 3)


def test_what_is_left_after_sampling_keeps_its_source_and_a_source_of_which_nothing_is_left_is_named() -> None:
    asked = [Problem([1], {"prompt": "1", "answer": "1"}, f"{name}: 1", source=name) for name in ("short", "texts")]
    sampled = [Sampled(one.where, 1, 0, [[2, 3]]) for one in asked]
    for collect in ({"rif": {"k": 1, "max_tokens": 4}}, {"rejection_sampling": {"k": 1, "max_tokens": 4}}):
        kept, _ = filtered(CollectConfig.model_validate(collect), asked, sampled, demonstrations=False)
        assert [one.source for one in kept] == ["short", "texts"]
    made = prepared(data=mix())
    with pytest.raises(DataError, match=r"data\.train\.mix\.texts: no row of it is left to be trained on"):
        made.with_sets(dataclasses.replace(made.sets, train=[one for one in made.sets.train if one.source == "short"]))  # type: ignore[arg-type]
