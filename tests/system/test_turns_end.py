"""A model that is trained on conversations of two turns, by the command, ends each of its turns when it is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from asked import talk
from families import chatml, of_bytes
from posttrain.model.load import load
from posttrain.settings.model import ModelConfig

pytestmark = pytest.mark.system


def test_each_turn_ends_with_what_the_template_writes_there(
    posttrain: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    model, _ = load(ModelConfig.model_validate({"from_scratch": size, "tokenizer": "bytes"}), seed=0)
    tokens = of_bytes(chatml())
    model.resize_token_embeddings(288)
    model.save_pretrained(tmp_path / "start")
    tokens.save_pretrained(tmp_path / "start")
    talks = [talk(f"q{i}", f"a{i}", f"r{i}", f"b{i}") for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in talks))
    recipe = {
        "model": {"name": str(tmp_path / "start")},
        "algorithm": {"name": "sft"},
        "data": {"train": {"path": str(tmp_path / "rows.jsonl")}},
        "training": {"max_steps": 120, "rows_per_step": 4, "learning_rate": 3e-3, "save_every": 0},
        "output_dir": str(tmp_path / "run"),
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    code, _, err = posttrain("run", str(tmp_path / "recipe.yaml"))
    assert code == 0 and "Answers end with <|im_end|> too" in err

    final = tmp_path / "run" / "final"
    trained: Any = AutoModelForCausalLM.from_pretrained(final)
    tokenizer = AutoTokenizer.from_pretrained(final)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in trained.generation_config.eos_token_id
    for messages in talks:
        for turn in (1, 3):
            asked = tokenizer.apply_chat_template(
                messages[:turn], add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            with torch.no_grad():
                said = trained.generate(**asked, do_sample=False, max_new_tokens=16)[0, asked["input_ids"].shape[1] :]
            assert tokenizer.decode(said) == f"{messages[turn]['content']}<|im_end|>"
