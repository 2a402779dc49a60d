"""Mixtures, replay and the held-out share in a recipe: what is read of them, and what is refused with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import RecipeError
from posttrain.recipe.recipe import load_recipe
from posttrain.settings.data import Mixture, TaskSource
from recipes import recipe

A, B = {"path": "a.jsonl"}, {"task": "chain", "rows": 8}
GRPO = {
    "algorithm": {"name": "grpo"},
    "rollout": {"questions_per_step": 2, "n": 2, "max_tokens": 4},
    "training": {"max_steps": 2},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def mix(**more: Any) -> dict[str, Any]:
    return {"mix": {"a": A, "b": {**B, "weight": 3}}, **more}


def refused(**changes: Any) -> str:
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe(**changes))
    return str(error.value)


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ({"mix": {"a": {**A, "weight": 0}}}, "data.train.mix.a.weight: a weight is more than 0, and 0 would never be read"),
        ({"mix": {"a": {**A, "weight": -1}}}, "data.train.mix.a.weight: a weight is more than 0, and -1 would never be read"),
        ({"mix": {}}, "data.train: mix: it has no source"),
        ({"mix": {"a": {"weight": 1}}}, "data.train.mix.a: a source of a mixture has one of the keys path, hub, task"),
        ({"mix": {"a": {**A, "wieght": 1}}}, "data.train.mix.a.wieght: unknown key; did you mean weight?"),
        ({"mix": {"a/b": A}}, "data.train: mix: 'a/b': a name has letters, digits, _ and -"),
        ({"mix": {"a": A}, **A}, "data.train: path names one source, and mix several: put it into mix, under a name"),
        ([A, B], "data.train: one source is expected; several are mix: {NAME: {path: …, weight: 1}}"),
        ({**A, "weight": 2}, "data.train.weight: unknown key"),
        (mix(unit="bytes"), "data.train.unit: input should be 'rows' or 'tokens'"),
        (mix(phases=[{"weights": {"c": 1}}]), "data.train: phases.0.weights: c is no source of mix (a, b)"),
        (mix(phases=[{"until": 0.5, "weights": {"a": 0}}, {}]), "data.train.phases.0.weights.a: a weight is more than 0"),
        (mix(phases=[{"until": 0.5, "weights": {}}, {}]), "data.train.phases.0.weights: "),
        (
            mix(phases=[{"until": 0.5}, {"until": 0.5}, {}]),
            "data.train: phases: until is 0.5, 0.5, 1: each must be more than",
        ),
        (mix(phases=[{"until": 0.5}, {"until": 0.9}]), "data.train: phases: until is 0.5, 0.9: each must be more than"),
        (
            mix(phases=[{"until": 0.5, "weights": {"a": 1}}, {"weights": {"a": 2}}]),
            "data.train: phases: b is read in none of",
        ),
    ],
)
def test_a_bad_mixture_is_refused_with_a_sentence(train: Any, says: str) -> None:
    assert f": {says}" in refused(data={"train": train})


def test_a_name_that_stands_twice_is_refused() -> None:
    text = Path(recipe()).read_text().replace("    rows: 8\n    task: chain\n", "    mix: {a: {path: x}, a: {path: y}}\n")
    Path("recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"data\.train\.mix\.a: the key stands twice"):
        load_recipe("recipe.yaml")


def test_passes_over_several_sources_are_refused_and_over_one_are_not() -> None:
    says = refused(data={"train": mix()}, training={"epochs": 1})
    assert "training.epochs: with data.train.mix each source has passes of its own: set training.max_steps" in says
    assert load_recipe(recipe(data={"train": {"mix": {"a": A}}}, training={"epochs": 1})).training.epochs == 1


def test_a_mixture_of_one_task_has_its_verifier_and_another_one_needs_rewards() -> None:
    same = {"mix": {"easy": B, "hard": {**B, "hard": 1.0}}}
    made = load_recipe(recipe(**GRPO, data={"train": same}))
    assert isinstance(made.data.judged, TaskSource) and isinstance(made.data.train, Mixture)
    load_recipe(recipe(**GRPO, data={"train": same}, rewards=[{"name": "task"}]))
    assert "rewards: grpo learns from rewards" in refused(**GRPO, data={"train": mix()})
    says = refused(**GRPO, data={"train": mix()}, rewards=[{"name": "task"}])
    assert (
        "rewards: task is the verifier of a generated task or a gym, and the sources of data.train.mix are not all the same"
        in says
    )
    says = refused(data={"train": mix(), "collect": {"rif": {"max_tokens": 4}}})
    assert "data.collect: data.train.mix.b has a verifier of its own" in says


SFT, DPO = {"algorithm": {"name": "sft"}}, {"algorithm": {"name": "dpo"}}


def stages(*given: dict[str, Any]) -> dict[str, Any]:
    return {"stages": list(given), "data": {"train": B}}


def replaying(**replay: Any) -> dict[str, Any]:
    return {**SFT, "name": "again", "data": {"train": A, "replay": {"share": 0.25, **replay}}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": {"train": B, "replay": {"share": 0.1}}}, "data.replay: there is nothing to replay"),
        (stages(replaying(), SFT), "stages.0.data.replay: there is nothing to replay in the first stage"),
        (stages(SFT, replaying(of=["stf"])), "stages.1.data.replay: stf is no earlier stage (1-sft)"),
        (stages(SFT, replaying(of=["again"])), "stages.1.data.replay: again is no earlier stage (1-sft)"),
        (stages(SFT, replaying(of=[])), "stages.1.data.replay: of names no stage"),
        (
            stages(DPO, replaying()),
            "stages.1.data.replay: stage 1-dpo is trained on preferences, and this one on demonstrations",
        ),
        (
            stages({**SFT, "data": {"collect": {"rif": {"max_tokens": 4}}}}, replaying()),
            "stages.1.data.replay: stage 1-sft is trained on what data.collect makes",
        ),
        (stages(SFT, replaying(share=0)), "stages.1.data.replay.share: input should be greater than 0"),
        (stages(SFT, replaying(share=1)), "stages.1.data.replay.share: input should be less than 1"),
        (stages(SFT, replaying(buffer=0)), "stages.1.data.replay.buffer: "),
        (
            stages(SFT, {**replaying(), "training": {"epochs": 1, "max_steps": None}}),
            "training.epochs: with data.replay each source",
        ),
    ],
)
def test_bad_replay_is_refused_with_a_sentence(changes: dict[str, Any], says: str) -> None:
    assert says in refused(**changes)


def test_replay_is_of_the_stages_it_names_or_of_all_and_resolves_to_itself() -> None:
    made = load_recipe(recipe(**stages(SFT, {**SFT, "name": "more", "data": {"train": mix()}}, replaying(buffer=5))))
    replay = made.stages[2].data.replay
    assert replay is not None and list(replay.sources) == ["1-sft", "2-more"]
    assert [one.train for one in replay.sources.values()] == [one.data.train for one in made.stages[:2]]
    assert type(made).model_validate(made.model_dump(mode="json")) == made
    assert made.stages[1].data.replay is None
    for named in ("more", "2-more"):
        one = load_recipe(recipe(**stages(SFT, {**SFT, "name": "more"}, replaying(of=[named])))).stages[2].data.replay
        assert one is not None and list(one.sources) == ["2-more"]


def test_replay_takes_no_name_of_a_source() -> None:
    mixed = {**SFT, "data": {"train": {"mix": {"replay": A}}, "replay": {"share": 0.1}}}
    assert "train.mix.replay: rows of earlier stages (data.replay) are called that" in refused(**stages(SFT, mixed))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"train": B, "eval_share": 0.1}, "data: eval_share: train is a generated task, with other questions for evaluation"),
        ({"train": mix(), "eval_share": 0.1}, "data: eval_share: train.mix.b is a generated task"),
        ({"train": A, "eval_share": 0}, "data.eval_share: input should be greater than 0"),
        ({"train": A, "eval_share": 0.1, "eval": {"train_share": A}}, "data: eval_share: its set is called train_share"),
    ],
)
def test_a_held_out_share_that_makes_no_sense_is_refused(data: dict[str, Any], says: str) -> None:
    assert says in refused(data=data)


def test_the_held_out_share_is_a_set_like_others() -> None:
    data = {"train": A, "eval_share": 0.1, "decontaminate": {"against": ["train_share"], "on_hit": "drop"}}
    made = load_recipe(recipe(data=data, eval={"metric": "train_share/nll", "every": 1}))
    assert made.data.kept_clean_of == ["train_share"]
    assert "none" in refused(data={"train": A}, eval={"metric": "train_share/nll", "every": 1})
