"""Optional packages are asked for before anything is loaded: exit code 4 and how to install each."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from transformers.training_args import OptimizerNames

from posttrain.errors import SetupError
from posttrain.recipe.packages import TRACKERS, check_packages
from posttrain.recipe.recipe import load_recipe
from posttrain.settings.trainer.optimizers import IN_BACKWARD, OF_TORCH, PACKAGE_OF
from recipes import Command, recipe


def absent(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As on a machine that has them not."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "posttrain.recipe.packages.find_spec", lambda name: None if name in names else real(name), raising=True
    )


def training(**values: Any) -> dict[str, Any]:
    return {"training": {"max_steps": 2, **values}}


def optimizer(name: str) -> dict[str, Any]:
    return training(lr_scheduler_type="constant", extra={"optim": name, "optim_target_modules": ["attn"]})


def playing(name: str, **told: Any) -> dict[str, Any]:
    rollout = {"questions_per_step": 2, "n": 2, "max_tokens": 4}
    environment = {"name": name, "max_turns": 2, **told}
    data = {"chat_template": False, "train": {"environment": {"rows": 4}}}
    return {"algorithm": {"name": "grpo"}, "environment": environment, "data": data, "rollout": rollout, **training()}


OTHERS = [
    (
        playing("openenv", url="ws://127.0.0.1:1", observation="said"),
        "websockets",
        "environment: openenv needs the package websockets: pip install 'posttrain[openenv]'",
    ),
    (
        playing("verifiers", id="some-environment"),
        "verifiers",
        "environment: some-environment needs the package verifiers: pip install 'posttrain[verifiers]'",
    ),
]
CASES = [
    *((training(report_to=[name]), package, f"training.report_to: {name} needs") for name, package in TRACKERS.items()),
    (training(optimizer={"name": "adamw_8bit"}), "bitsandbytes", "training.optimizer: adamw_8bit needs"),
    (
        training(optimizer={"name": "schedule_free"}, lr_scheduler_type="constant"),
        "schedulefree",
        "training.optimizer: schedule_free needs the package schedulefree: pip install 'posttrain[schedule-free]'",
    ),
    (
        {"model": {"name": "a/model", "adapter": {}, "quantization": {"bits": 8}}},
        "bitsandbytes",
        "model.quantization: int8 needs the package bitsandbytes: pip install 'posttrain[quantization]'",
    ),
    *OTHERS,
    *((optimizer(name), module, f"training.extra.optim: {name} needs") for name, (module, _) in PACKAGE_OF.items()),
    ({"eval": {}, "distributed": {"mode": "zero2", "processes": 2}}, "deepspeed", "distributed.mode: zero2 needs"),
    (
        {"algorithm": {"name": "grpo"}, "rollout": {"engine": "vllm"}, **training()},
        "vllm",
        "engine: vllm needs the package vllm: pip install",
    ),
]


@pytest.mark.parametrize(("changes", "package", "says"), CASES)
def test_each_package_that_a_recipe_can_ask_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any], package: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    absent(monkeypatch, package)
    checked = load_recipe(recipe(**changes))
    with pytest.raises(SetupError, match="pip install") as raised:
        check_packages(checked)
    assert says in str(raised.value)


@pytest.mark.parametrize("command", [["validate"], ["run", "--dry-run"], ["run"]])
def test_each_command_asks_before_it_loads(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: list[str]
) -> None:
    absent(monkeypatch, "wandb", "bitsandbytes")
    path = recipe(model={"name": "./absent"}, **training(report_to=["wandb"], extra={"optim": "adamw_8bit"}))
    code, _, err = posttrain(*command, path)
    assert code == 4 and "pip install wandb\n" in err and "pip install bitsandbytes" in err and "absent" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_what_a_tracker_writes_is_not_taken_for_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mlflow").mkdir()
    if importlib.util.find_spec("mlflow").origin is None:  # type: ignore[union-attr]
        with pytest.raises(SetupError, match="pip install mlflow"):
            check_packages(load_recipe(recipe(**training(report_to=["mlflow"]))))


def test_all_optimizers_of_transformers_have_a_place() -> None:
    assert sorted((*OF_TORCH, *PACKAGE_OF, *IN_BACKWARD)) == sorted(name.value for name in OptimizerNames)
