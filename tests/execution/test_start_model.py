"""A run goes on from the start model that it had, in a folder that is its own; what is finished stays so."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from posttrain.model.proofs import disk
from recipes import Command, recipe, write
from tiny import make_model

TRAINING = {"max_steps": 2, "rows_per_step": 4, "lr_scheduler_type": "constant", "save_every": 1}
ROWS = [{"prompt": f"{i} + 1 =", "chosen": str(i + 1), "rejected": "none"} for i in range(8)]
DATA = {"train": {"path": "rows.jsonl"}, "chat_template": False}


def start(**fields: Any) -> Path:
    model, tokenizer = make_model(dtype="float32", **fields)
    model.save_pretrained("start")
    tokenizer.save_pretrained("start")
    return Path("start")


def made(**changes: Any) -> str:
    write(Path("rows.jsonl"), *ROWS)
    return recipe(**{"model": {"name": "start"}, "algorithm": {"name": "dpo"}, "data": DATA, "training": TRAINING, **changes})


def lose_final() -> None:
    shutil.rmtree("out/final")


def test_another_start_model_is_refused_and_the_same_goes_on(posttrain: Command) -> None:
    folder = start()
    assert posttrain("run", made())[0] == 0
    lose_final()
    file = folder / "model.safetensors"
    before = file.read_bytes()
    tensors = load_file(file)
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file({**tensors, name: tensors[name].flip(0)}, file, metadata={"format": "pt"})
    code, _, err = posttrain("run", made())
    assert code == 8 and "was trained from another start model: its weights are others" in err
    file.write_bytes(before)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.01}))
    code, _, err = posttrain("run", made())
    assert code == 8 and "its config says rms_norm_eps: 1e-06 then, 0.01 now" in err
    (folder / "config.json").write_text(json.dumps({**config, "a_key_of_a_newer_version": 1}))
    assert posttrain("run", made())[0] == 0


def test_a_tokenizer_that_would_be_another_one_in_what_is_saved_is_refused(posttrain: Command) -> None:
    scratch = {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1}
    model = {"from_scratch": scratch, "tokenizer": {"characters": "0123456789 +=é"}}
    rows = write(Path("sums.jsonl"), *({"prompt": f"{i} + 1 =", "completion": str(i + 1)} for i in range(8)))
    data = {"train": {"path": rows}, "chat_template": False}
    code, _, err = posttrain("run", recipe(model=model, data=data))
    assert code == 4 and "what is saved would have another tokenizer" in err and not Path("out").exists()
    assert err.rstrip().endswith("Take architecture: llama, or an alphabet of ASCII characters.")
    model["from_scratch"]["architecture"] = "llama"
    training = {"max_steps": 1, "rows_per_step": 8, "learning_rate": 1.0e-3}
    assert posttrain("run", recipe(model=model, data=data, training=training))[0] == 0


def test_a_recipe_of_the_users_is_not_overwritten(posttrain: Command) -> None:
    own = Path(recipe(output_dir=".")).read_text()
    Path("notes.txt").write_text("mine")
    code, _, err = posttrain("run", "recipe.yaml")
    assert code == 8 and "recipe.yaml is of no run, and would be overwritten" in err
    assert Path("recipe.yaml").read_text() == own and sorted(p.name for p in Path().iterdir()) == ["notes.txt", "recipe.yaml"]


def test_a_folder_at_home_is_found(posttrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd() / "home"))
    assert posttrain("run", recipe(), "--output-dir", "~/run")[0] == 0
    assert Path("home/run/final").is_dir() and not Path("~").exists()


def test_a_finished_run_without_its_first_stage_is_finished(posttrain: Command) -> None:
    stages = [{"name": "a"}, {"name": "b", "training": {"max_steps": 1, "rows_per_step": 4}}]
    assert posttrain("run", recipe(stages=stages))[0] == 0
    shutil.rmtree("out/1-a")
    code, out, _ = posttrain("run", recipe(stages=stages))
    assert code == 0 and "is finished; nothing was done" in out and not Path("out/1-a").exists()


def test_lora_of_a_shared_head_is_what_final_and_best_have(posttrain: Command) -> None:
    from transformers import AutoModelForCausalLM

    start(tie_word_embeddings=True)
    model = {"name": "start", "adapter": {"r": 4, "target_modules": ["lm_head", "q_proj"]}}
    held_out = {**DATA, "eval": {"held": {"path": "rows.jsonl"}}}
    training = {**TRAINING, "learning_rate": 0.05}
    code, _, err = posttrain(
        "run", made(model=model, data=held_out, eval={"every": 1, "metric": "held/loss"}, training=training)
    )
    assert code == 0 and "each has its own from here on" in err
    loaded: Any = AutoModelForCausalLM
    final, best = (loaded.from_pretrained(Path("out") / name) for name in ("final", "best"))
    assert not torch.equal(final.get_input_embeddings().weight, final.get_output_embeddings().weight)
    assert final.config.tie_word_embeddings is best.config.tie_word_embeddings is False


@pytest.mark.parametrize(
    "name",
    [
        "final.partial",
        "metrics.jsonl",
        *(pytest.param(one, marks=pytest.mark.system) for one in ("best.partial", "eval.jsonl")),
    ],
)
def test_a_full_disk_ends_with_exit_8_and_the_same_command_goes_on(
    name: str, posttrain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    changes: dict[str, Any] = {"data": {**DATA, "eval": {"held": {"path": "rows.jsonl"}}}}
    changes["eval"] = {"every": 1, "metric": "held/loss"}
    assert posttrain("run", made(**changes), "--output-dir", "whole")[0] == 0
    synced, opened = disk.sync, Path.open

    def full(path: Path) -> None:
        if name in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(path: Path) -> None:
        full(path)
        synced(path)

    def open_to_append(self: Path, *arguments: Any, **options: Any) -> Any:
        if arguments[:1] == ("a",):
            full(self)
        return opened(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(disk, "sync", sync)
        patched.setattr(Path, "open", open_to_append)
        code, _, err = posttrain("run", made(**changes))
    assert code == 8 and "cannot be written: No space left on device" in err and "Traceback" not in err
    assert not list(Path("out").glob("*.partial"))
    assert posttrain("run", made(**changes))[0] == 0
    files = [Path(folder) / "final" / "model.safetensors" for folder in ("out", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(("steps", "then"), [(4, 5), (3, 8)], ids=["after the schedule's end", "in its middle"])
def test_a_longer_run_has_the_rates_of_its_own_schedule(steps: int, then: int, posttrain: Command) -> None:
    def training(of: int) -> dict[str, Any]:
        return {**TRAINING, "max_steps": of, "save_every": steps, "lr_scheduler_type": "linear", "learning_rate": 0.01}

    rows = {"algorithm": {"name": "sft"}, "data": {"train": {"task": "chain", "rows": 8}}}
    scratch = {
        "from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1},
        "tokenizer": "characters",
    }
    assert posttrain("run", recipe(model=scratch, training=training(steps), **rows))[0] == 0
    ended = Path("out/final/model.safetensors").read_bytes()
    assert posttrain("run", recipe(training=training(then), **rows))[0] == 0
    lines = [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    rates = [0.01 * (1 - step / then) for step in range(steps, then)]
    assert [line["learning_rate"] for line in lines[steps:]] == pytest.approx(rates)
    assert Path("out/final/model.safetensors").read_bytes() != ended
