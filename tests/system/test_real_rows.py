"""The GSM8K recipes on the real rows: held-out loss falls, and preferences are predicted better than before training."""

from __future__ import annotations

from pathlib import Path

import gsm8k_pairs
import pytest

from gsm8k import demonstrations, preferences, real_data

pytestmark = pytest.mark.system


@pytest.mark.parametrize(("algorithm", "native"), [("sft", "nll"), ("dft", "objective/dft"), ("asft", "objective/dft")])
def test_held_out_loss_falls(algorithm: str, native: str, tmp_path: Path) -> None:
    data = real_data()
    train, held_out = data / "gsm8k_train.jsonl", data / "gsm8k_test.jsonl"
    result = demonstrations(algorithm, train, held_out, tmp_path / "run", "training.max_steps=25", "eval.every=null")
    before, after = (metrics[f"eval/held_out/{native}"] for metrics in (result.start_metrics, result.metrics))
    assert after < before - 0.1


def test_held_out_preferences_are_predicted_better_than_before(tmp_path: Path) -> None:
    gsm8k_pairs.write(real_data() / "gsm8k_model_solutions.jsonl", tmp_path)
    result = preferences(tmp_path, tmp_path / "run", "eval.every=null")
    before, after = result.start_metrics, result.metrics
    assert after["eval/held_out/preference/accuracy/low"] > before["eval/held_out/preference/accuracy"]
