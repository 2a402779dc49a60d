"""Products in `model.compute`, trained parameters in float32, files in `model.dtype`; told, and kept when a run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from posttrain.execution.folder.same_recipe import RECIPE_BY_US
from posttrain.execution.planning import plan
from posttrain.execution.prepare import preparation
from posttrain.model.load import load
from posttrain.model.proofs.identity import identity
from posttrain.recipe.recipe import load_recipe
from posttrain.settings.model import ModelConfig
from recipes import SCRATCH, Command, recipe
from tiny import TINY

TRAINING = {"max_steps": 2, "rows_per_step": 4, "lr_scheduler_type": "constant"}


def planned(**model: Any) -> tuple[str, str, str]:
    rows = plan(load_recipe(recipe(model={**SCRATCH, **model})))
    return rows["computed in"], rows["trained in"], rows["saved as"]


def kinds(path: str) -> set[torch.dtype]:
    return {value.dtype for value in load_file(path).values()}


def without_masters(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was before."""
    monkeypatch.setattr(preparation, "load", lambda *args, masters, **options: load(*args, **options))
    monkeypatch.setattr("posttrain.train.given.handed.with_masters", lambda model: False)


def test_the_plan_says_in_what_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert planned() == ("float32", "float32", "float32")
    assert planned(dtype="bfloat16") == ("float32", "float32", "bfloat16")
    assert planned(dtype="bfloat16", compute="bfloat16") == ("bfloat16", "float32", "bfloat16")
    assert planned(dtype="float64") == ("float64", "float64", "float64")
    over = planned(dtype="bfloat16", compute="bfloat16", adapter={"r": 2})
    assert over == ("bfloat16", "float32, over a frozen base in bfloat16", "bfloat16")


def test_on_a_gpu_products_are_bfloat16_unless_the_recipe_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from posttrain.execution import numbers

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(numbers, "on_gpu", lambda recipe: True)
    for able, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda able=able, **_: able)
        assert numbers.computed_in(load_recipe(recipe())) == expected
    assert numbers.computed_in(load_recipe(recipe(model={**SCRATCH, "compute": "bfloat16"}))) == "bfloat16"
    assert numbers.computed_in(load_recipe(recipe(model={**SCRATCH, "dtype": "float64"}))) == "float64"


def test_a_checkpoint_keeps_the_float32_masters_and_final_is_in_the_dtype(posttrain: Command) -> None:
    model = {**SCRATCH, "dtype": "bfloat16", "compute": "bfloat16"}
    training = {**TRAINING, "max_steps": 4, "save_every": 2, "save_total_limit": None, "learning_rate": 1e-6}
    assert posttrain("run", recipe(model=model, training=training))[0] == 0
    masters = load_file("out/checkpoint-4/model.safetensors")
    assert {value.dtype for value in masters.values()} == {torch.float32}
    final = load_file("out/final/model.safetensors")
    assert final.keys() == masters.keys()
    assert all(torch.equal(value, masters[name].bfloat16()) for name, value in final.items())
    assert json.loads(Path("out/final/config.json").read_text())["dtype"] == "bfloat16"
    assert yaml.safe_load(Path("out/recipe.yaml").read_text())["model"]["compute"] == "bfloat16"
    short = recipe(model=model, training={**training, "max_steps": 2})
    assert posttrain("run", short, "--output-dir", "broken")[0] == 0
    assert posttrain("run", recipe(model=model, training=training), "--output-dir", "broken")[0] == 0
    again = load_file("broken/checkpoint-4/model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in masters.items())  # to the last bit, as if never broken off


@pytest.mark.parametrize("recorded", ["compute", "bf16"])
def test_a_run_goes_on_in_the_numbers_that_it_began_in(recorded: str, posttrain: Command) -> None:
    """Whatever the default is where it goes on; also one of before `model.compute` was there."""
    asked = {"compute": "bfloat16"}
    assert posttrain("run", recipe(model={**SCRATCH, **asked}, training=TRAINING))[0] == 0
    if recorded == "bf16":
        values = yaml.safe_load(Path("out/recipe.yaml").read_text())
        values["training"]["bf16"] = True
        del values["model"]["compute"]
        Path("out/recipe.yaml").write_text(RECIPE_BY_US + yaml.safe_dump(values))
    unset = recipe(training={**TRAINING, "max_steps": 4})
    assert posttrain("run", unset)[0] == 0
    assert yaml.safe_load(Path("out/recipe.yaml").read_text())["model"]["compute"] == "bfloat16"
    code, _, err = posttrain("run", recipe(model={**SCRATCH, "compute": "float32"}, training={**TRAINING, "max_steps": 4}))
    assert code == 8 and "model.compute: bfloat16 then, float32 now" in err


def test_a_checkpoint_of_bfloat16_numbers_is_refused_with_a_sentence(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {**SCRATCH, "dtype": "bfloat16"}
    with monkeypatch.context() as before:
        without_masters(before)
        before.setattr(preparation, "identity", lambda of: {k: v for k, v in identity(of).items() if k != "held"})
        assert posttrain("run", recipe(model=model, training=TRAINING))[0] == 0
    longer = recipe(model=model, training={**TRAINING, "max_steps": 4})
    code, _, err = posttrain("run", longer)
    assert code == 8 and "it was begun when model.dtype: bfloat16 meant that bfloat16 numbers were trained" in err


def test_an_adapter_is_float32_over_a_base_in_the_dtype(posttrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[str, torch.dtype] = {}

    def noted(*arguments: Any, **options: Any) -> Any:
        model, tokenizer = load(*arguments, **options)
        held.update({name: p.dtype for name, p in model.named_parameters()})
        return model, tokenizer

    monkeypatch.setattr(preparation, "load", noted)
    model = {**SCRATCH, "dtype": "bfloat16", "compute": "bfloat16", "adapter": {"r": 2}}
    pair = {"algorithm": {"name": "asft"}}  # with a reference
    assert posttrain("run", recipe(model=model, training=TRAINING, **pair))[0] == 0
    assert held and {name for name, dtype in held.items() if dtype == torch.float32} == {n for n in held if "lora_" in n}
    assert kinds("out/final/model.safetensors") == {torch.bfloat16}
    assert kinds("out/final/adapter/adapter_model.safetensors") == {torch.float32}


# Fifty steps at a learning rate of 1e-6.


def changes(folder: Path, start: dict[str, Tensor]) -> Tensor:
    """Of the trained parameters, as they were held when training ended."""
    end = load_file(folder / "checkpoint-50" / "model.safetensors")
    return torch.cat([(end[name].double() - start[name].double()).flatten() for name in sorted(start)])


@pytest.mark.system
def test_a_bfloat16_recipe_moves_what_float32_moves(posttrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the weights that move in float32 training at least 99 % move, and the same way; without masters they do not."""
    begun, tokenizer = load(ModelConfig(from_scratch=TINY, tokenizer="characters"), seed=0)
    begun.to(torch.bfloat16).save_pretrained("start")
    tokenizer.save_pretrained("start")
    start = load_file("start/model.safetensors")
    training = {**TRAINING, "max_steps": 50, "learning_rate": 1e-6, "save_every": 50}

    def trained(folder: str, **model: str) -> Tensor:
        made = recipe(model={"name": "start", **model}, training=training, data={"train": {"task": "chain", "rows": 200}})
        assert posttrain("run", made, "--output-dir", folder)[0] == 0
        return changes(Path(folder), start)

    def compared(one: Tensor, other: Tensor) -> tuple[float, float]:
        moved = other[one != 0] != 0
        return moved.double().mean().item(), torch.cosine_similarity(one, other, 0).item()

    plain = trained("plain", dtype="float32", compute="float32")
    assert (plain != 0).double().mean() > 0.5  # rows of characters that the data lack stay
    for compute in ("float32", "bfloat16"):
        share, cosine = compared(plain, trained(compute, dtype="bfloat16", compute=compute))
        assert share >= 0.99 and cosine >= 0.999
    without_masters(monkeypatch)
    share, cosine = compared(plain, trained("before", dtype="bfloat16", compute="bfloat16"))
    assert share < 0.5 and cosine < 0.9
