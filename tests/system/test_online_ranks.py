"""GRPO on two ranks that share the model, with real vLLM in each of them: one run of the command line."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM

from system.processes import environment

pytestmark = pytest.mark.system
RECIPE: dict[str, Any] = {
    "model": {
        "from_scratch": {
            "architecture": "qwen2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 2, "tie_word_embeddings": True,
        },
        "tokenizer": {"characters": "0123456789+-*="},
    },
    "algorithm": {"name": "dr_grpo", "kl_coef": 0.01},
    "data": {
        "train": {"task": "running_totals", "rows": 64},
        "eval": {"held_out": {"task": "running_totals", "split": "held_out", "rows": 7}},
    },
    "rewards": [{"name": "length"}],
    "rollout": {"questions_per_step": 5, "n": 4, "max_tokens": 12, "engine": "vllm", "vllm": {"max_model_len": 64}},
    "training": {"max_steps": 3, "rows_per_step": 20, "learning_rate": 3e-3, "save_every": 0},
    "eval": {"samples": 2, "max_tokens": 8},
    "distributed": {"mode": "zero3", "processes": 2, "timeout": 200},
}  # fmt: skip


def test_two_ranks_share_a_model_and_each_samples_its_part_with_vllm(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "output_dir": str(tmp_path / "run")}))
    command = [sys.executable, "-m", "posttrain", "run", str(tmp_path / "recipe.yaml")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 processes: zero3" in done.stdout
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3]
    for step in steps:
        assert step["grad_norm"] > 0 and step["logp_diff/max"] < 1e-3 and math.isfinite(step["loss"])
    evaluations = [json.loads(line) for line in (tmp_path / "run" / "eval.jsonl").read_text().splitlines()]
    assert [one["step"] for one in evaluations] == [0, 3]
    assert len((tmp_path / "run/completions/eval-held_out-step-000003.jsonl").read_text().splitlines()) == 14
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "final")
    assert model.config.tie_word_embeddings and model.lm_head.weight is model.model.embed_tokens.weight
