"""Update rules: each against its formula, the limit in which it is the plain run, and a run that goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain import PostTrainer
from posttrain.errors import CheckpointError, SetupError
from posttrain.settings.model import Adapter
from posttrain.train.updates import UPDATES, LearningConfig, UpdateConfig
from posttrain.train.updates.ema import EMA
from posttrain.train.updates.ewc import EWC
from posttrain.train.updates.inverse_norm import InverseNorm
from posttrain.train.updates.l2_sp import L2SP
from posttrain.train.updates.momentum_reset import MomentumReset
from posttrain.train.updates.new_embeddings import NewEmbeddings
from posttrain.train.updates.refactor import Refactor
from posttrain.train.updates.reptile import Reptile
from posttrain.train.updates.soft_mask import SoftMask
from posttrain.train.updates.trainable import TrainableConfig
from posttrain.train.updates.trainable.blocks import Blocks
from posttrain.train.updates.trainable.lisa import Lisa
from posttrain.train.updates.trainable.unfreeze import Unfreeze
from tiny import make_examples, make_model, parameters
from train.test_resume import differ, ended

MakeTrainer = Callable[..., PostTrainer]
STEPS = 4


def trainer(
    make: MakeTrainer, *update: UpdateConfig, trainable: TrainableConfig | None = None, output: str = "run", **options: Any
) -> PostTrainer:
    model, tokenizer = make_model(adapter=options.pop("adapter", None), **options.pop("fields", {}))
    kept = make_examples(model, tokenizer, rows=5)
    learnt = {rule.name: kept for rule in update if isinstance(rule, LearningConfig)}
    return make(
        "sft",
        output=output,
        model=(model, tokenizer),
        trainer_options={"update": update, "trainable": trainable, "update_rows": learnt},
        **{"max_steps": STEPS, "optim": "adamw_torch", "learning_rate": 1e-2, **options},
    )


def trained(make: MakeTrainer, *update: UpdateConfig, **options: Any) -> torch.Tensor:
    one = trainer(make, *update, **options)
    one.train()
    return parameters(one.model)


def after_each_step(make: MakeTrainer, *update: UpdateConfig, **options: Any) -> list[torch.Tensor]:
    """The weights at the start and after so many steps: runs of so many, which begin alike."""
    start = parameters(trainer(make, output="start", **options).model)
    runs = [trained(make, *update, output=f"run{n}", **{**options, "max_steps": n}) for n in range(1, STEPS + 1)]
    return [start, *runs]


PLAIN: dict[str, Sequence[UpdateConfig]] = {
    "l2_sp": [L2SP(strength=0)],
    "reptile": [Reptile(every=1, rate=1)],
    "ema": [EMA(decay=0)],
    "new_embeddings": [NewEmbeddings(every=STEPS + 1)],
    "ewc": [EWC(strength=0)],
    "ewc sampled": [EWC(strength=0, fisher="sampled")],
    "soft_mask": [SoftMask(strength=0)],
    "momentum_reset": [MomentumReset(every=STEPS + 1)],
}


@pytest.mark.parametrize("name", PLAIN)
def test_at_its_limit_a_rule_is_the_plain_run_to_the_last_bit(name: str, make_trainer: MakeTrainer) -> None:
    assert torch.equal(trained(make_trainer, *PLAIN[name], output="one"), trained(make_trainer, output="plain"))


def test_the_average_is_left_and_evaluated_and_training_does_not_see_it(make_trainer: MakeTrainer) -> None:
    plain = after_each_step(make_trainer)
    wanted = plain[0]
    for weights in plain[1:]:
        wanted = 0.75 * wanted + 0.25 * weights
    options = {"evaluate": True, "eval_strategy": "steps", "eval_steps": 1}
    one = trainer(make_trainer, EMA(decay=0.75), output="ema", **options)
    losses: list[float] = []
    one.listeners.append(Heard(losses, one, own := []))  # type: ignore[arg-type]
    one.train()
    torch.testing.assert_close(parameters(one.model), wanted, rtol=0, atol=1e-12)
    assert len(own) == STEPS
    torch.testing.assert_close(own[0], 0.75 * plain[0] + 0.25 * plain[1], rtol=0, atol=1e-12)
    other = trainer(make_trainer, output="plain", **options)
    plain_losses: list[float] = []
    other.listeners.append(Heard(plain_losses, other, []))  # type: ignore[arg-type]
    other.train()
    assert all(one > plain for one, plain in zip(losses, plain_losses, strict=True)), "the average comes behind"


class Heard:
    """Of each evaluation its loss, and the weights that it was made with."""

    def __init__(self, losses: list[float], of: PostTrainer, weights: list[torch.Tensor]) -> None:
        self._losses, self._of, self._weights = losses, of, weights

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        self._losses.append(metrics["eval/held_out/loss"])
        self._weights.append(parameters(self._of.model))

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_weights_are_drawn_to_where_they_started_by_the_rate_of_the_step(make_trainer: MakeTrainer) -> None:
    rate, strength = 1e-2, 20.0
    start, plain, *_ = after_each_step(make_trainer, max_steps=1)
    drawn = trained(make_trainer, L2SP(strength=strength), output="drawn", max_steps=1)
    torch.testing.assert_close(drawn, plain - rate * strength * (plain - start), rtol=0, atol=1e-12)
    held = trained(make_trainer, L2SP(strength=1 / rate), output="held")
    torch.testing.assert_close(held, start, rtol=0, atol=1e-15)


def test_a_part_of_the_way_is_kept_every_so_many_steps(make_trainer: MakeTrainer) -> None:
    start, _, second, *_ = after_each_step(make_trainer)
    kept = trained(make_trainer, Reptile(every=2, rate=0.1), output="kept", max_steps=2)
    torch.testing.assert_close(kept, start + 0.1 * (second - start), rtol=0, atol=1e-12)
    back = trained(make_trainer, Reptile(every=STEPS, rate=0), output="back")
    torch.testing.assert_close(back, start, rtol=0, atol=1e-15)


def test_embeddings_are_drawn_anew_at_multiples_alone_and_the_body_goes_on(make_trainer: MakeTrainer) -> None:
    def weights(*update: UpdateConfig, steps: int) -> dict[str, torch.Tensor]:
        one = trainer(make_trainer, *update, output=f"run{steps}{len(update)}", max_steps=steps)
        one.train()
        return {name: own.detach().clone() for name, own in one.model.named_parameters()}  # type: ignore[union-attr]

    [changed] = [name for name in weights(steps=1) if name.endswith("embed_tokens.weight")]
    rule, plain = NewEmbeddings(every=2, deviation=0.5), {steps: weights(steps=steps) for steps in (1, 2)}
    assert all(map(torch.equal, weights(rule, steps=1).values(), plain[1].values()))
    drawn = weights(rule, steps=2)
    assert {name for name, own in drawn.items() if not torch.equal(own, plain[2][name])} == {changed}
    assert abs(float(drawn[changed].std()) - 0.5) < 0.02 and abs(float(drawn[changed].mean())) < 0.02
    with pytest.raises(SetupError, match="take a model whose embeddings are untied"):
        trainer(make_trainer, rule, output="tied", fields={"tie_word_embeddings": True})


LORA = Adapter(r=4, alpha=4)


def test_small_rows_of_b_learn_the_faster(make_trainer: MakeTrainer) -> None:
    """By plain gradient descent the first step of B, which is 0, is `rate` times as long, and A does not move."""
    options = {"adapter": LORA, "optim": "sgd", "learning_rate": 0.1, "max_steps": 1}
    start = parameters(trainer(make_trainer, output="start", **options).model)
    plain = trained(make_trainer, output="plain", **options) - start
    scaled = trained(make_trainer, InverseNorm(rate=3), output="scaled", **options) - start
    assert plain.abs().max() > 0
    torch.testing.assert_close(scaled, 3 * plain, rtol=0, atol=1e-12)
    rule, b = InverseNorm(rate=2).build(0), torch.nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    b.grad = torch.ones(2, 2)
    with torch.no_grad():
        rule.on_gradients({"q.lora_B.default.weight": b, "q.other": torch.nn.Parameter(torch.ones(1))}, 1)
    torch.testing.assert_close(b.grad, torch.tensor([[1 / 5.25**0.5] * 2, [2.0] * 2]))


def test_refactored_matrices_are_balanced_forgotten_and_give_the_same_product() -> None:
    torch.manual_seed(0)
    a, b = (torch.nn.Parameter(torch.randn(*shape, dtype=torch.float64)) for shape in ((3, 8), (6, 3)))
    optimizer, product = torch.optim.AdamW([a, b]), b.detach() @ a.detach()
    a.grad, b.grad = torch.zeros_like(a), torch.zeros_like(b)
    optimizer.step()
    product = b.detach() @ a.detach()
    with torch.no_grad():
        rule = Refactor(every=2).build(0)
        rule.on_weights({"q.lora_A.default.weight": a, "q.lora_B.default.weight": b}, optimizer, 1)
        assert len(optimizer.state) == 2
        rule.on_weights({"q.lora_A.default.weight": a, "q.lora_B.default.weight": b}, optimizer, 2)
    torch.testing.assert_close(b @ a, product, rtol=0, atol=1e-12)
    torch.testing.assert_close(b.T @ b, a @ a.T, rtol=0, atol=1e-12)
    assert not optimizer.state


CASES: dict[str, dict[str, Any]] = {
    "weights": {"update": [EMA(decay=0.5), L2SP(strength=1), Reptile(every=2)]},
    "embeddings": {"update": [NewEmbeddings(every=2)]},
    "kept": {"update": [EWC(strength=1), SoftMask(), MomentumReset(every=3)]},
    "adapter": {"update": [InverseNorm(), Refactor(every=2), EMA()], "adapter": LORA},
    "lisa": {"trainable": Lisa(layers=1, every=2), "update": [EMA()]},
    "blocks": {"trainable": Blocks(every=1)},
    "unfreeze": {"trainable": Unfreeze(every=2)},
}


def test_every_rule_goes_on() -> None:
    assert {rule.name for case in CASES.values() for rule in case.get("update", [])} == {
        rule.model_fields["name"].default for rule in UPDATES
    }


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_goes_on_is_the_uninterrupted_one(name: str, make_trainer: MakeTrainer) -> None:
    def made(output: str) -> PostTrainer:
        case = dict(CASES[name])
        saved = {"save_strategy": "steps", "save_steps": 1, "evaluate": True, "eval_strategy": "steps", "eval_steps": 2}
        fields = {"attention_dropout": 0.0 if "adapter" in case else 0.2}
        return trainer(make_trainer, *case.pop("update", ()), output=output, fields=fields, **saved, **case)

    whole = made("run")
    whole.train()
    wanted = ended(whole)
    again = made("run")
    again.run_files.resume_at(2)
    again.train(resume_from_checkpoint=str(Path(str(again.args.output_dir)) / "checkpoint-2"))
    assert differ(ended(again), wanted) == []


def test_a_checkpoint_of_other_rules_is_refused(make_trainer: MakeTrainer) -> None:
    saved = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    trained(make_trainer, L2SP(strength=1), **saved)
    other = trainer(make_trainer, **{**saved, "max_steps": 2})
    folder = Path(str(other.args.output_dir)) / "checkpoint-1"
    with pytest.raises(CheckpointError, match="is of a run with update rules"):
        other.train(resume_from_checkpoint=str(folder))
    other = trainer(make_trainer, EMA(), **{**saved, "max_steps": 2})
    with pytest.raises(CheckpointError, match="with other update rules"):
        other.train(resume_from_checkpoint=str(folder))


def test_after_a_reset_the_optimizer_is_as_new(make_trainer: MakeTrainer) -> None:
    def stepped(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer, gradient: float) -> torch.Tensor:
        weight.grad = torch.tensor([gradient, -1.0])
        optimizer.step()
        return weight.detach().clone()

    one = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    reset, rule = torch.optim.AdamW([one], lr=0.1), MomentumReset(every=2).build(0)
    for step, gradient in enumerate((3.0, -1.0), 1):
        before = stepped(one, reset, gradient)
        rule.on_weights({"one": one}, reset, step)
        assert bool(reset.state) == (step == 1)
    new = torch.nn.Parameter(before)
    assert torch.equal(stepped(one, reset, 0.5), stepped(new, torch.optim.AdamW([new], lr=0.1), 0.5))
    with pytest.raises(SetupError, match="keeps nothing that could be forgotten"):
        trained(make_trainer, MomentumReset(every=1), output="sgd", optim="sgd")


def test_a_rule_of_adapters_needs_one(make_trainer: MakeTrainer) -> None:
    with pytest.raises(SetupError, match=r"inverse_norm: it is of a LoRA adapter's matrices"):
        trainer(make_trainer, InverseNorm())
