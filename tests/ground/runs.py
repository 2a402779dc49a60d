"""Runs of the command on a real model, and what other libraries, used plainly, say of the folders that they leave."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from gsm8k import real_data
from system.processes import environment

ADAPTER = {"r": 8, "alpha": 16}
GSM8K = {"prompt": "question", "completion": "answer"}
Ids = tuple[list[int], list[int]]
"""A prompt and its answer."""


def recipe(folder: Path, model: Path, **more: Any) -> Path:
    """Writes recipe.yaml: a LoRA adapter on the model, GSM8K's first rows, and what is told besides."""
    path = str(real_data() / "gsm8k_train.jsonl")
    values = {
        "model": {"name": str(model), "adapter": ADAPTER},
        "data": {"train": {"path": path, "columns": GSM8K}, "max_tokens": 512},
        "output_dir": "out",
        **more,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder / "recipe.yaml"


def command(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """`posttrain …` in a folder: exit code, stdout, stderr."""
    own = environment(COLUMNS="300", HF_HUB_OFFLINE="1")
    line = [sys.executable, "-m", "posttrain", *arguments]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, env=own, timeout=600)
    return done.returncode, done.stdout, done.stderr


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def encoded(model: Path, rows: list[dict[str, str]], answer: str) -> list[Ids]:
    """Questions by the model's own chat template, and answers as text with the token that ends a turn."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    made: list[Ids] = []
    for row in rows:
        asked = [{"role": "user", "content": row.get("question") or row["prompt"]}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        made.append((prompt, [*tokenizer(row[answer], add_special_tokens=False).input_ids, tokenizer.eos_token_id]))
    return made


def logprobs(model: Any, rows: list[Ids]) -> list[torch.Tensor]:
    """Each answer's log-probs, one row at a time, by the model's whole logits. [tokens], float32."""
    found: list[torch.Tensor] = []
    for prompt, answer in rows:
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
        found.append(logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0])
    return found


def greedy(model: Any, prompt: list[int], most: int) -> list[int]:
    """The answer's tokens by the model's own generate."""
    ids = torch.tensor([prompt])
    whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False)[0]
    return whole[len(prompt) :].tolist()


def loaded(folder: Path) -> Any:
    """The model of a folder by AutoModelForCausalLM, float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def with_adapter(model: Path, final: Path) -> Any:
    """The start model with the adapter beside the trained one, by peft."""
    from peft import PeftModel

    return PeftModel.from_pretrained(loaded(model), final / "adapter").eval()


def by_vllm(folder: Path, rows: list[Ids]) -> list[torch.Tensor]:
    """The same log-probs by vLLM, in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "rows.json"
        path.write_text(json.dumps(rows))
        child = [sys.executable, str(Path(__file__).parent / "score_with_vllm.py"), str(folder), str(path)]
        own = environment(VLLM_CPU_KVCACHE_SPACE="1", VLLM_ENABLE_V1_MULTIPROCESSING="0", HF_HUB_OFFLINE="1")
        done = subprocess.run(child, capture_output=True, text=True, env=own, timeout=600)
        assert done.returncode == 0, done.stderr
        return [torch.tensor(row) for row in json.loads(path.read_text())]


def apart(some: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """The largest difference of two log-probs of one token, in nats."""
    return max(float((a - b).abs().max()) for a, b in zip(some, others, strict=True))
