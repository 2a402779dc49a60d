"""Recipe to trained model on rows of GSM8K's shape: every offline kind learns, and leaves a folder that others can use."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import gsm8k_pairs
import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from gsm8k import ROOT, demonstrations, generated_questions, generated_solutions, overrides, preferences
from posttrain import load_recipe
from posttrain.errors import CheckpointError, RecipeError
from posttrain.execution.folder.same_recipe import RECIPE_BY_US
from posttrain.execution.numbers import settled

SHORT = ("training.max_steps=15", "training.rows_per_step=8", "eval.every=10")


@pytest.mark.parametrize("algorithm", ["sft", "dft", "asft"])
def test_demonstrations_are_learned(algorithm: str, tmp_path: Path) -> None:
    train, held_out = (generated_questions(tmp_path / f"{i}.jsonl", 60, i) for i in (1, 2))
    result = demonstrations(algorithm, train, held_out, tmp_path / "run", *SHORT)
    for native in ("nll", "objective/dft")[: 1 if algorithm == "sft" else 2]:
        assert result.metrics[f"eval/held_out/{native}"] < result.start_metrics[f"eval/held_out/{native}"] - 0.01


def test_preferences_are_learned_and_the_folder_is_whole(tmp_path: Path) -> None:
    source = generated_solutions(tmp_path / "solutions.jsonl", 80, 1)
    train, held_out = gsm8k_pairs.write(source, tmp_path / "pairs")
    assert train > 20 and held_out > 20
    more = ("eval.metric=held_out/preference/accuracy", "training.save_every=10")
    result = preferences(tmp_path / "pairs", tmp_path / "run", *SHORT, *more)
    start, end = result.start_metrics, result.metrics
    assert start["eval/held_out/objective/dpo"] == pytest.approx(math.log(2), abs=1e-6)
    assert end["eval/held_out/objective/dpo"] < math.log(2)
    assert end["eval/held_out/preference/accuracy/low"] > start["eval/held_out/preference/accuracy"]
    folder = result.output_dir
    assert {"recipe.yaml", "metrics.jsonl", "eval.jsonl", "final", "best", "checkpoint-10"} <= {
        p.name for p in folder.iterdir()
    }
    loaded: list[Any] = [kind.from_pretrained(folder / "final") for kind in (AutoModelForCausalLM, AutoTokenizer)]
    model, tokenizer = loaded[0], loaded[1]
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "?"}], add_generation_prompt=True, return_tensors="pt")
    assert model.generate(ids["input_ids"], max_new_tokens=2, do_sample=False).shape[1] > ids["input_ids"].shape[1]
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 16))

    again = preferences(tmp_path / "pairs", folder, *SHORT, *more)
    assert again.was_finished and again.metrics == result.metrics


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    train, held_out = (generated_questions(tmp_path / f"{i}.jsonl", 20, i) for i in (1, 2))
    folder = tmp_path / "run"
    for wrong in (
        "eval.metric=held_out/nonsense",
        "training.extra={lr_scheduler_kwargs: {nonsense: 1}}",
        "training.extra={optim: nonsense}",
    ):
        with pytest.raises(RecipeError):
            demonstrations("sft", train, held_out, folder, *SHORT, wrong)
        assert not folder.exists()
    begun = (*SHORT, "eval.metric=held_out/nonsense")
    folder.mkdir()
    recipe = settled(load_recipe(ROOT / "recipes/start/gsm8k_cpu.yaml", overrides("sft", train, held_out, folder, *begun)))
    (folder / "recipe.yaml").write_text(RECIPE_BY_US + yaml.safe_dump(recipe.model_dump(mode="json")))
    (folder / "best").mkdir()  # of an earlier, interrupted attempt: it is kept
    with pytest.raises(RecipeError):
        demonstrations("sft", train, held_out, folder, *begun)
    assert (folder / "best").is_dir()
    with pytest.raises(CheckpointError, match="cannot be made"):
        demonstrations("sft", train, held_out, Path("/proc/none/run"), *SHORT)


def test_an_interrupted_run_resumes_and_a_damaged_checkpoint_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train, held_out = (generated_questions(tmp_path / f"{i}.jsonl", 20, i) for i in (1, 2))
    more = ("training.max_steps=6", "training.rows_per_step=4", "eval.metric=held_out/nll", "eval.every=2")
    whole = demonstrations("sft", train, held_out, tmp_path / "whole", *more)
    folder = tmp_path / "cut"
    demonstrations("sft", train, held_out, folder, *more)
    for path in (folder / "final", folder / "checkpoint-6"):
        shutil.rmtree(path)
    with (folder / "eval.jsonl").open("a") as file:
        file.write('{"step": 6, "eval/held')
    resumed = demonstrations("sft", train, held_out, folder, *more)
    measured = {name: value for name, value in whole.metrics.items() if "second" not in name}
    assert {name: resumed.metrics[name] for name in measured} == measured
    assert json.loads((folder / "best/note.json").read_text())["value"] == whole.metrics["eval/held_out/nll"]

    shutil.rmtree(folder / "final")
    (folder / "checkpoint-6/model.safetensors").write_bytes(b"torn")
    again = demonstrations("sft", train, held_out, folder, *more)
    assert "checkpoint-6 is damaged (model.safetensors has 4 bytes" in caplog.text
    assert {name: again.metrics[name] for name in measured} == measured

    shutil.rmtree(folder / "final")
    for checkpoint in folder.glob("checkpoint-*"):
        (checkpoint / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(
        CheckpointError, match=r"no checkpoint is as it was written \(checkpoint-6: model\.safetensors has 4 bytes"
    ):
        demonstrations("sft", train, held_out, folder, *more)
