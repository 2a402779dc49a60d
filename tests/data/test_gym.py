"""Questions of reasoning-gym as a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from posttrain.data.sources import gym, read
from posttrain.errors import DataError, RecipeError, SetupError
from posttrain.settings.data import GymSource
from recipes import SCRATCH, Command, recipe


def questions(**changes: Any) -> list[str]:
    return [one.columns["prompt"] for one in read(GymSource(**{"gym": "chain_sum", "rows": 40, **changes}))]


def test_it_is_the_same_for_one_seed_and_another_for_its_neighbour() -> None:
    first = questions()
    assert questions() == first and questions(rows=10) == first[:10]
    assert len(set(first) & set(questions(seed=1))) < 4
    terms = [one.count("+") + one.count("-") + 1 for one in questions(options={"min_terms": 3, "max_terms": 3})]
    assert set(terms) == {3}


def test_a_record_has_the_gyms_answer_and_is_found_again_by_its_question() -> None:
    source = GymSource(gym="chain_sum", rows=5, seed=3)
    for number, record in enumerate(read(source), 1):
        assert record.where == f"chain_sum:{number}" and gym.index_of(source, record.columns["prompt"]) == number - 1
        asked = record.columns["prompt"].partition(": ")[2].removesuffix(" =")
        assert record.columns["answer"] == record.columns["completion"] == str(eval(asked))
    assert gym.index_of(source, "1 + 1 =") is None


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"gym": "chain_sums"}, RecipeError, "reasoning-gym has no chain_sums; did you mean chain_sum?"),
        ({"options": {"terms": 3}}, RecipeError, r"chain_sum with options \{'terms': 3\}: .*unexpected keyword"),
        ({"options": {"min_terms": 9}}, RecipeError, r"chain_sum with options \{'min_terms': 9\}: "),
        ({"options": {"size": 9}}, ValidationError, "size is a key of its own: rows"),
        ({"seed": 2**12}, ValidationError, "less than 4096"),
        ({"gym": "rush_hour"}, DataError, "rush_hour:1: reasoning-gym has no answer of its own"),
    ],
)
def test_what_cannot_be_asked_is_refused(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        questions(**changes)


def test_where_it_is_not_installed_it_is_said_how_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'posttrain\[reasoning-gym\]'"):
        questions(seed=77)


def test_a_recipe_trains_on_a_gym_by_its_verifier_and_is_evaluated_on_another_seed(
    posttrain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = {"gym": "basic_arithmetic", "rows": 8, "options": {"min_terms": 2, "max_terms": 2}}
    path = recipe(
        algorithm={"name": "grpo"},
        model={**SCRATCH, "tokenizer": {"characters": "".join(map(chr, range(32, 127)))}},
        data={"train": source, "eval": {"held_out": {**source, "seed": 1, "rows": 4}}},
        rollout={"questions_per_step": 2, "n": 2, "max_tokens": 4},
        training={"max_steps": 1},
        eval={"samples": 1, "max_tokens": 4},
    )
    code, out, err = posttrain("run", path)
    assert code == 0 and "held_out/pass@1" in out, err
