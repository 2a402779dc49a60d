"""A real pretrained model by the command: DPO on real right and wrong solutions, and GRPO on its own answers by vLLM."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import gsm8k_pairs
import pytest
import torch

from ground.catalogue import MODEL
from ground.runs import apart, by_vllm, command, encoded, lines, loaded, logprobs, recipe, with_adapter
from gsm8k import real_data

pytestmark = pytest.mark.system
PAIRS = 2
RealModel = Callable[[str], Path]


@pytest.fixture(scope="module")
def start(real_model: RealModel) -> Path:
    return real_model(MODEL)


def test_dpo_starts_from_ln_2_and_final_prefers_as_the_run_said(start: Path, tmp_path: Path) -> None:
    """Tied embeddings, rotary positions, packed rows: the reference is the start, to the last bit."""
    gsm8k_pairs.write(real_data() / "gsm8k_model_solutions.jsonl", tmp_path)
    data = {
        "train": {"path": "train.jsonl", "limit": 64},
        "eval": {"held_out": {"path": "held_out.jsonl", "limit": PAIRS}},
        "max_tokens": 512,
    }
    training = {"max_steps": 2, "rows_per_step": 2, "learning_rate": 5e-4, "warmup_steps": 0, "save_every": 0}
    recipe(tmp_path, start, algorithm={"name": "dpo"}, data=data, training=training)
    code, _, err = command(tmp_path, "run", "recipe.yaml")
    assert code == 0, err
    steps, [first, last] = lines(tmp_path / "out" / "metrics.jsonl"), lines(tmp_path / "out" / "eval.jsonl")
    assert steps[0]["objective/dpo"] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(steps[0]["preference/margin"]) < 1e-6 and abs(first["eval/held_out/preference/margin"]) < 1e-6
    assert abs(last["eval/held_out/preference/margin"]) > 1e-3
    final = tmp_path / "out" / "final"
    rows = lines(tmp_path / "held_out.jsonl")[:PAIRS]
    chosen, rejected = (encoded(start, rows, side) for side in ("chosen", "rejected"))
    base, trained = ([logprobs(model, side) for side in (chosen, rejected)] for model in (loaded(start), loaded(final)))
    good, bad = (torch.cat(new).sum() - torch.cat(old).sum() for new, old in zip(trained, base, strict=True))
    margin = float(good - bad) / PAIRS
    assert last["eval/held_out/preference/margin"] == pytest.approx(margin, abs=1e-3)
    assert apart(logprobs(with_adapter(start, final), chosen), trained[0]) < 1e-4


def test_grpo_by_vllm_trains_on_the_samplers_own_log_probs_and_final_is_what_it_trained(start: Path, tmp_path: Path) -> None:
    train = {"path": str(real_data() / "gsm8k_train.jsonl"), "columns": {"prompt": "question"}, "limit": 8}
    rollout = {"engine": "vllm", "questions_per_step": 2, "n": 4, "max_tokens": 16, "log_completions": 8}
    training = {"max_steps": 2, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "warmup_steps": 0, "save_every": 0}
    even = {
        "name": "format",
        "form": "pattern",
        "pattern": "(?s)(..)*",
    }  # an even number of characters: differs between answers
    recipe(
        tmp_path,
        start,
        algorithm={"name": "grpo", "kl_coef": 0.05},
        data={"train": train},
        rewards=[{"name": "math_verify", "verdict": True}, even],
        rollout=rollout,
        training=training,
    )
    code, _, err = command(tmp_path, "run", "recipe.yaml")
    assert code == 0, err
    steps = lines(tmp_path / "out" / "metrics.jsonl")
    assert len(steps) == 2 and max(step["logp_diff/max"] for step in steps) < 1e-4
    assert abs(steps[0]["loss/kl"]) < 1e-9 < steps[0]["grad_norm"]
    rows = encoded(start, lines(real_data() / "gsm8k_train.jsonl")[:2], "answer")
    final = tmp_path / "out" / "final"
    trained = logprobs(loaded(final), rows)
    assert apart(trained, logprobs(loaded(start), rows)) > 1e-3
    assert apart(logprobs(with_adapter(start, final), rows), trained) < 1e-4
    assert apart(by_vllm(final, rows), trained) < 1e-4
