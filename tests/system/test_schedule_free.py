"""The schedule-free optimizer of its package: against its equations, and which of its weights a run saves, evaluates and goes
on from.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from posttrain import PostTrainer
from posttrain.errors import RecipeError
from posttrain.train.optimizers import built_optimizer
from posttrain.train.optimizers._optimizer import Trained
from posttrain.train.optimizers.schedule_free import ScheduleFree
from trainers import make_trainer

__all__ = ["make_trainer"]
pytestmark = pytest.mark.system
MakeTrainer = Callable[..., PostTrainer]
BETAS, EPSILON = (0.8, 0.95), 1e-8


def trained(weight: nn.Parameter, *, decay: float = 0.0, betas: tuple[float, float] = BETAS) -> Trained:
    groups = [{"params": [weight], "lr": 0.1, "weight_decay": decay}]
    return Trained(groups=groups, betas=betas, epsilon=EPSILON, model=nn.Module())


def test_its_steps_are_those_of_the_equations_and_warm_up_counts_by_its_rates() -> None:
    gradients, rates = [0.5, -2.0, 1.0, 0.3, -0.1], [0.0, 0.05, 0.1, 0.1, 0.1]
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer: Any = built_optimizer(ScheduleFree(power=1.0), trained(weight, decay=0.01))
    z = x = y = 1.0
    v = total = 0.0
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.train()
        assert weight.item() == pytest.approx(y, abs=1e-12)
        weight.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        v = BETAS[1] * v + (1 - BETAS[1]) * g * g
        total += (part := t * rate**2)
        c = part / total if total else 0.0
        z -= rate * (g / ((v / (1 - BETAS[1] ** t)) ** 0.5 + EPSILON) + 0.01 * y)
        x = (1 - c) * x + c * z
        y = (1 - BETAS[0]) * z + BETAS[0] * x
        optimizer.eval()
        assert weight.item() == pytest.approx(x, abs=1e-12)
    with pytest.raises(RecipeError, match="adam_beta1 must be above 0"):
        built_optimizer(ScheduleFree(), trained(weight, betas=(0.0, 0.9)))


def weights(model: Any) -> dict[str, Tensor]:
    return {name: own.detach().clone() for name, own in model.named_parameters()}


class Evaluated:
    """The weights that each evaluation sees."""

    def __init__(self, seen: list[dict[str, Tensor]], of: PostTrainer) -> None:
        self._seen, self._of = seen, of

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        self._seen.append(weights(self._of.model))

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_the_average_is_saved_and_evaluated_and_a_run_goes_on_to_the_last_bit(make_trainer: MakeTrainer) -> None:
    def made(output: str, steps: int) -> PostTrainer:
        own = {"optimizer": ScheduleFree()}
        often = {"save_strategy": "steps", "save_steps": 2, "evaluate": True, "eval_strategy": "steps", "eval_steps": 2}
        rates = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2, "learning_rate": 0.01}
        return make_trainer("sft", output=output, max_steps=steps, trainer_options=own, **often, **rates)

    whole, short, longer = made("whole", 4), made("short", 2), made("short", 4)
    whole.listeners.append(Evaluated(seen := [], whole))  # type: ignore[arg-type]
    whole.train()
    short.train()
    longer.run_files.resume_at(2)
    longer.train(resume_from_checkpoint=str(Path(str(longer.args.output_dir)) / "checkpoint-2"))
    ended, saved = weights(whole.model), load_file(Path(str(whole.args.output_dir)) / "checkpoint-4" / "model.safetensors")
    assert all(torch.equal(own, ended[name]) for name, own in weights(longer.model).items())
    assert all(torch.equal(saved[name], own) and torch.equal(seen[-1][name], own) for name, own in ended.items())
    whole._take_weights_of("train")
    optimizer: Any = whole.optimizer
    state, beta = optimizer.state, whole.args.adam_beta1
    for name, y in whole.model.named_parameters():  # type: ignore[union-attr]
        z = state[y]["z"]
        torch.testing.assert_close(y.detach(), (1 - beta) * z + beta * saved[name], rtol=0, atol=1e-12)
        assert not torch.equal(y, saved[name]) and not torch.equal(z, saved[name])
