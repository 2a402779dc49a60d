"""Questions of reasoning-gym as a source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from posttrain.data.sources import gym, gym_made, read
from posttrain.errors import DataError, RecipeError, SetupError
from posttrain.settings.data import GymSource
from recipes import SCRATCH, Command, recipe

SOURCE = {"gym": "chain_sum", "rows": 40, "seed": 3}


def questions(**changes: Any) -> list[str]:
    return [one.columns["prompt"] for one in read(GymSource(**{**SOURCE, **changes}))]


def made_here(**changes: Any) -> Any:
    """What the process that makes questions says, said in this one: these gyms draw from no sets."""
    made = gym_made.questions(GymSource(**{**SOURCE, **changes}).model_dump())
    return [question for question, _ in made["questions"]] if "questions" in made else made


def test_it_is_the_same_for_one_seed_and_another_for_its_neighbour() -> None:
    first = questions()
    assert made_here() == first and made_here(rows=10) == first[:10]
    assert len(set(first) & set(made_here(seed=4))) < 4
    terms = [one.count("+") + one.count("-") + 1 for one in made_here(options={"min_terms": 3, "max_terms": 3})]
    assert set(terms) == {3}


def test_a_record_has_the_gyms_answer_and_is_found_again_by_its_question() -> None:
    source = GymSource.model_validate(SOURCE)
    for number, record in enumerate(read(source), 1):
        assert record.where == f"chain_sum:{number}" and gym.index_of(source, record.columns["prompt"]) == number - 1
        asked = record.columns["prompt"].partition(": ")[2].removesuffix(" =")
        assert record.columns["answer"] == record.columns["completion"] == str(eval(asked))
    assert gym.index_of(source, "1 + 1 =") is None


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"gym": "chain_sums"}, RecipeError, "gym: reasoning-gym has no chain_sums; did you mean chain_sum?"),
        ({"options": {"size": 9}}, ValidationError, "size is a key of its own: rows"),
        ({"seed": 2**12}, ValidationError, "less than 4096"),
        ({"gym": "rush_hour"}, DataError, "rush_hour:1: reasoning-gym has no answer of its own"),
    ],
)
def test_what_cannot_be_asked_is_refused(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        questions(**changes)


def test_options_that_a_gym_does_not_take_are_refused_as_an_unknown_gym_is() -> None:
    for options, says in (({"terms": 3}, ".*unexpected keyword"), ({"min_terms": 9}, "")):
        asked = re.escape(f"chain_sum with options {options}: ")
        assert re.match(asked + says, made_here(options=options)["refused"])


def test_where_it_is_not_installed_it_is_said_how_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'posttrain\[reasoning-gym\]'"):
        questions(seed=77)


@pytest.mark.system
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
