"""Where stages start from, and rounds: what they become, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.errors import RecipeError
from posttrain.recipe.recipe import load_recipe
from recipes import recipe

OWN = {"model": {"name": "start"}, "rewards": [{"name": "exact_match"}]}
WRITTEN = {"generate": {"writer": "previous", "verdict": "grader", "max_tokens": 4}}

NOBODY = {"train": {"task": "chain", "rows": 8}, "collect": [{"generate": {"writer": "nobody", "max_tokens": 4}}]}


def collected(**collect: Any) -> dict[str, Any]:
    return {**OWN, "data": {"train": {"task": "chain", "rows": 8}, "collect": [collect or WRITTEN]}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_stage_starts_from_the_one_before_from_base_or_from_one_by_name() -> None:
    stages = [{"name": "a"}, {"name": "b"}, {"name": "c", "from": "a"}, {"name": "d", "from": "base"}]
    found = load_recipe(recipe(model={"name": "start"}, stages=stages)).stages
    assert [stage.model.name for stage in found] == ["start", "out/1-a/final", "out/1-a/final", "start"]


def test_a_round_is_all_stages_once_more_with_another_seed() -> None:
    path = recipe(seed=5, stages=[{"name": "a"}, {"seed": 9}], rounds={"times": 2})
    found = load_recipe(path).stages
    assert [(one.name, one.round, one.seed) for one in found] == [
        ("round1-a", 1, 5),
        ("round1-sft", 1, 9),
        ("round2-a", 2, 6),
        ("round2-sft", 2, 10),
    ]
    assert [one.model.name for one in found[1:]] == [f"{one.output_dir}/final" for one in found[:3]]


def test_one_round_of_a_recipe_without_stages_is_that_recipe_in_a_stage() -> None:
    plain, [one] = load_recipe(recipe()), load_recipe(recipe(rounds={"times": 1})).stages
    assert one.output_dir == "out/1-round1"
    same = {"output_dir": "out", "rounds": None, "stages": []}
    assert {name: getattr(one, name) for name in type(plain).model_fields} | same == {
        name: getattr(plain, name) for name in type(plain).model_fields
    }


def test_a_recipe_with_rounds_is_read_as_it_is_written_down() -> None:
    whole = load_recipe(recipe(**collected(), rounds={"times": 3, "from": "base", "data": "accumulate"}))
    Path("resolved.yaml").write_text(yaml.safe_dump(whole.model_dump(mode="json")))
    assert load_recipe("resolved.yaml") == whole


def test_rounds_from_base_begin_anew_with_what_the_model_before_has_written() -> None:
    rounds = load_recipe(recipe(**collected(), rounds={"times": 3, "from": "base", "data": "accumulate"})).stages
    assert [one.model.name for one in rounds] == ["start"] * 3
    [first], [second], [third] = (one.data.model_dump()["collect"] for one in rounds)
    assert first["generate"]["writer"] == "self"
    assert second["generate"]["writer"]["name"] == "out/1-round1/final"
    assert third["generate"]["writer"]["name"] == "out/2-round2/final"
    assert [one.data.earlier_rounds for one in rounds] == [[], ["out/1-round1"], ["out/1-round1", "out/2-round2"]]


def test_rows_of_a_stage_are_kept_for_the_same_stage_of_later_rounds() -> None:
    stages = [{"name": "made"}, {"name": "given", "data": {"collect": None}}]
    found = load_recipe(recipe(**collected(), stages=stages, rounds={"times": 2, "data": "accumulate"})).stages
    assert [one.data.earlier_rounds for one in found] == [[], None, ["out/1-round1-made"], None]


def test_a_stage_of_the_same_round_is_named_without_it() -> None:
    """The latest of its name: what it replays is of all rounds, and who writes is of this one."""
    writes = {"generate": {"writer": "a", "max_tokens": 4}}
    stages = [{"name": "a"}, {"name": "b", "data": {"collect": [writes]}}]
    found = load_recipe(recipe(stages=stages, rounds={"times": 2})).stages
    asked = [one.data.model_dump()["collect"][0]["generate"]["writer"]["name"] for one in found[1::2]]
    assert asked == ["out/1-round1-a/final", "out/3-round2-a/final"]
    replayed = [{"name": "a"}, {"name": "b", "data": {"replay": {"of": ["a"], "share": 0.5}}}]
    found = load_recipe(recipe(stages=replayed, rounds={"times": 2})).stages
    assert [[*one.data.replay.sources] for one in found[1::2] if one.data.replay] == [
        ["1-round1-a"],
        ["1-round1-a", "3-round2-a"],
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stages": [{}, {"from": "c"}]}, "stages.1.from: c is neither previous, base, nor a stage before (sft)"),
        ({"stages": [{"from": "b"}, {"name": "b"}]}, "stages.0.from: b is neither previous, base, nor a stage before (none)"),
        ({"stages": [{"name": "a"}, {"name": "a"}]}, "stages.1.name: another stage is called a"),
        ({"stages": [{"name": "base"}]}, "stages.0.name: base says where a stage starts from"),
        ({"stages": [{}, {"model": {"name": "x"}}]}, "stages.1.model.name: this stage starts from the model that another"),
        ({"stages": [{}, {"from": "base", "seed": 3}]}, "stages.1.from: base is made from scratch by the seed"),
        ({"rounds": {"times": 2, "from": "base"}, **OWN}, "rounds.from: base begins anew each time"),
        ({"rounds": {"times": 2, "data": "accumulate"}}, "rounds.data: accumulate keeps the rows that rounds make"),
        ({"rounds": {"times": 2}, "stages": [{"from": "base"}]}, "stages.0.from: what a round begins with is said once"),
        ({"rounds": {"times": 0}}, "recipe.yaml:15: rounds.times: input should be greater"),
        ({"rounds": {"time": 1}}, "rounds.time: unknown key; did you mean times?"),
        ({"stages": [{"rounds": {"times": 2}}]}, "stages.0.rounds"),
        ({**OWN, "rounds": {"times": 2}, "data": NOBODY}, "data.collect.0.generate.writer: nobody is neither self"),
        (
            {**OWN, "rounds": {"times": 2}, "stages": [{}], "data": NOBODY},
            "data.collect.0.generate.writer: nobody is neither",
        ),
        ({"stages": [{}, {"round": 2}], "rounds": {"times": 2}}, "stages.1.round: it is filled in"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe(recipe(**changes))
    assert told in str(refused.value), refused.value


def test_a_fault_that_every_round_has_is_told_once_and_where_it_is_written() -> None:
    for path in ("training.max_steps", "stages.1.training.max_steps"):
        with pytest.raises(RecipeError) as refused:
            load_recipe(recipe(stages=[{}, {}], rounds={"times": 3}), [f"{path}=-1"])
        told = str(refused.value)
        assert "\n" not in told and told.startswith(f"--set {path}=-1: {path}: "), told
