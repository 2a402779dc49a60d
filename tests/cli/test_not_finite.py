"""A run whose loss is not finite, by the command with its view of the progress: exit 5 and its sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from posttrain.cli import console
from posttrain.model.load import load
from posttrain.settings.model import ModelConfig
from recipes import SCRATCH, Command, recipe, write

ROLLOUTS = {"rollout": {"questions_per_step": 2, "n": 2, "max_tokens": 4}, "training": {"max_steps": 5}}


@pytest.fixture(params=[False, True], ids=["plain", "terminal"])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to show the progress: lines, and a bar on a terminal."""
    import posttrain.cli.commands.run as command

    monkeypatch.setattr(command, "out", Console(force_terminal=request.param))


@pytest.fixture
def spoilt(tmp_path: Path) -> dict[str, Any]:
    """A start model with NaN in its output layer."""
    model, tokenizer = load(ModelConfig.model_validate(SCRATCH), seed=0)
    with torch.no_grad():
        model.get_output_embeddings().weight[5] = float("nan")
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "spoilt")
    return {"name": "./spoilt"}


@pytest.mark.usefixtures("screen")
@pytest.mark.parametrize("algorithm", ["sft", "grpo"])
def test_a_start_model_with_nan(posttrain: Command, spoilt: dict[str, Any], algorithm: str) -> None:
    options = {"training": {"max_steps": 5, "rows_per_step": 4}} if algorithm == "sft" else ROLLOUTS
    code, _, err = posttrain("run", recipe(model=spoilt, algorithm={"name": algorithm}, **options))
    assert code == 5 and "is not finite, in 3 steps in a row" in err and "Traceback" not in err


@pytest.mark.usefixtures("screen")
def test_a_learning_rate_of_1e30(posttrain: Command, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", {"prompt": "1+1=", "completion": "2"}, {"prompt": "2+2=", "completion": "4"})
    training = {"max_steps": 8, "rows_per_step": 2, "learning_rate": 1e30}
    code, _, err = posttrain("run", recipe(data={"train": {"path": rows}}, training=training))
    assert code == 5 and "The usual cure is a lower learning_rate" in err and "Traceback" not in err


def test_what_is_not_finite_is_named_in_the_line_of_a_step() -> None:
    speed = {"train/tokens_per_second": 10.0}
    assert console._of_step(speed) == "loss not finite  10 tokens/s"
    assert console._of_step({**speed, "loss": 0.5}) == "loss 0.5000  10 tokens/s"
    assert console._of_step({**speed, "loss": 0.5, "objective/sft": 0.25}) == "loss 0.2500  10 tokens/s"
    assert console._of_step({**speed, "rollout/length": 8.0}) == "reward none  length 8.0  10 tokens/s"
