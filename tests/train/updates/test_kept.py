"""Rules that learn from rows what is to be kept: what they learn, against a naive reference, and what they then do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from posttrain import PostTrainer
from posttrain.errors import SetupError
from posttrain.train.updates import UpdateConfig
from posttrain.train.updates.ewc import EWC
from posttrain.train.updates.l2_sp import L2SP
from posttrain.train.updates.soft_mask import SoftMask, importances, shared
from tiny import make_examples, make_model, parameters

MakeTrainer = Callable[..., PostTrainer]
ROWS, RATE = 3, 1e-2
HEADS = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
"""Of which two share keys and values."""


def trainer(make: MakeTrainer, *update: UpdateConfig, output: str = "run", **options: Any) -> PostTrainer:
    model, tokenizer = make_model(**options.pop("fields", {}))
    rows = {rule.name: make_examples(model, tokenizer, rows=ROWS) for rule in update}
    own = {"max_steps": 1, "learning_rate": RATE, "max_grad_norm": 0.0, "optim": "sgd", "lr_scheduler_type": "constant"}
    told = {"update": update, "update_rows": rows}
    return make("sft", output=output, model=(model, tokenizer), trainer_options=told, **{**own, **options})


def learnt(one: PostTrainer) -> dict[str, torch.Tensor]:
    """What its one rule has learnt, by the names of parameters."""
    return {name.partition("/")[2]: value for name, value in one.run_state.updates.state().items()}


def losses(model: Any, tokenizer: Any, *, own: int | None = None) -> list[torch.Tensor]:
    """Of each row the negative log-likelihood that the model's own forward gives; `own`: of tokens that are drawn."""
    found = list[torch.Tensor]()
    for number, example in enumerate(make_examples(model, tokenizer, rows=ROWS)):
        row = example.rows[0]
        ids = torch.tensor([*row.prompt, *row.completion]).long()
        logits = model(input_ids=ids[None]).logits[0, len(row.prompt) - 1 : -1]
        target = ids[len(row.prompt) :]
        if own is not None:
            generator = torch.Generator().manual_seed(own * 1_000_003 + number)
            target = torch.multinomial(logits.float().softmax(-1), 1, generator=generator)[:, 0]
        found.append(cross_entropy(logits, target, reduction="sum"))
    return found


@pytest.mark.parametrize("fisher", ["empirical", "sampled"])
def test_the_fisher_information_is_the_mean_of_squared_gradients_of_rows(fisher: Any, make_trainer: MakeTrainer) -> None:
    one = trainer(make_trainer, EWC(strength=1, fisher=fisher))
    model: Any = one.model.eval()  # type: ignore[union-attr]
    wanted = {name: torch.zeros_like(own) for name, own in model.named_parameters()}
    for loss in losses(model, one.processing_class, own=one.args.seed if fisher == "sampled" else None):
        for name, gradient in zip(wanted, torch.autograd.grad(loss, list(model.parameters())), strict=True):
            wanted[name] += gradient.square() / ROWS
    one.train()
    found = learnt(one)
    assert found.keys() == wanted.keys() and all(own.max() > 0 for own in wanted.values())
    for name, own in wanted.items():
        torch.testing.assert_close(found[name], own, rtol=1e-9, atol=1e-14)


def test_where_the_fisher_information_is_1_it_is_l2_sp(make_trainer: MakeTrainer) -> None:
    ended = list[torch.Tensor]()
    for rule in (EWC(strength=20), L2SP(strength=20)):
        one = trainer(make_trainer, rule, output=rule.name, max_steps=3)
        updates = one.run_state.updates
        if rule.name == "ewc":
            updates.learn = lambda model, of=updates: of.restore({name: torch.ones_like(f) for name, f in of.state().items()})  # type: ignore[method-assign]
        one.train()
        ended.append(parameters(one.model))
    assert torch.equal(*ended)


def test_weights_go_back_by_what_they_matter(make_trainer: MakeTrainer) -> None:
    start = parameters(trainer(make_trainer, output="start").model)
    plain = trainer(make_trainer, output="plain")
    plain.train()
    strength = 50.0
    one = trainer(make_trainer, EWC(strength=strength), output="ewc")
    one.train()
    fisher = torch.cat([own.flatten() for own in learnt(one).values()])
    moved, share = parameters(plain.model) - start, (RATE * strength * fisher).clamp(max=1)
    torch.testing.assert_close(parameters(one.model) - start, moved * (1 - share), rtol=0, atol=1e-12)
    assert (share == 1).any() and (share < 0.5).any()


def gates(model: Any, tokenizer: Any) -> dict[str, torch.Tensor]:
    """Of each head and neuron the mean gradient by a gate of ones on it, by forward hooks."""
    heads, found, hooks = model.config.num_attention_heads, dict[str, torch.Tensor](), []
    for number, layer in enumerate(model.model.layers):
        for name, module, units in (
            ("self_attn.o_proj", layer.self_attn.o_proj, heads),
            ("mlp.down_proj", layer.mlp.down_proj, layer.mlp.down_proj.in_features),
        ):
            gate = torch.ones(units, dtype=torch.float64, requires_grad=True)
            found[f"model.layers.{number}.{name}.weight"] = gate

            def gated(module: Any, given: Any, gate: torch.Tensor = gate) -> Any:
                return (given[0] * gate.repeat_interleave(module.in_features // len(gate)),)

            hooks.append(module.register_forward_pre_hook(gated))
    gradients = [torch.autograd.grad(loss, list(found.values())) for loss in losses(model, tokenizer)]
    for hook in hooks:
        hook.remove()
    return {name: sum(of) / ROWS for name, *of in zip(found, *gradients, strict=True)}  # type: ignore[misc]


def test_importances_are_those_of_gates(make_trainer: MakeTrainer) -> None:
    one = trainer(make_trainer, SoftMask(), fields=HEADS)
    model: Any = one.model.eval()  # type: ignore[union-attr]
    wanted = {name: ((of - of.mean()) / of.std()).tanh().abs() for name, of in gates(model, one.processing_class).items()}
    one.train()
    found = learnt(one)
    for name, of in wanted.items():
        columns = dict(model.named_parameters())[name].shape[1]
        own = of.repeat_interleave(columns // len(of))
        torch.testing.assert_close(found[name][0], own, rtol=1e-7, atol=1e-10)
        before = name.removesuffix("o_proj.weight").removesuffix("down_proj.weight")
        for maker in ("q_proj", "gate_proj", "up_proj"):
            for part in ("weight", "bias"):
                if (of_rows := found.get(f"{before}{maker}.{part}")) is not None:
                    torch.testing.assert_close(of_rows.flatten(), own, rtol=1e-7, atol=1e-10)
        if (keys := found.get(f"{before}k_proj.weight")) is not None:
            torch.testing.assert_close(keys[:: len(keys) // 2, 0], of.view(2, 2).amax(1), rtol=1e-7, atol=1e-10)
    assert len(found) == 2 * (4 + 3 + 3)  # matrices, and biases of q, k, v, of two layers


def test_a_unit_changes_by_what_it_does_not_matter(make_trainer: MakeTrainer) -> None:
    """By plain gradient descent the change is that by gradients which are scaled, as the paper has it."""
    start = dict(trainer(make_trainer, output="start", fields=HEADS).model.named_parameters())  # type: ignore[union-attr]
    plain = trainer(make_trainer, output="plain", fields=HEADS)
    plain.train()
    one = trainer(make_trainer, SoftMask(), output="masked", fields=HEADS)
    one.train()
    masks, changed = learnt(one), dict(one.model.named_parameters())  # type: ignore[union-attr]
    for name, own in plain.model.named_parameters():  # type: ignore[union-attr]
        wanted = (own - start[name]) * (1 - masks[name] if name in masks else 1)
        torch.testing.assert_close(changed[name] - start[name], wanted, rtol=0, atol=1e-13)
    held = trainer(make_trainer, SoftMask(), output="held", fields=HEADS)
    updates = held.run_state.updates
    updates.learn = lambda model: updates.restore({name: torch.ones_like(f) for name, f in updates.state().items()})  # type: ignore[method-assign]
    held.train()
    for name, own in held.model.named_parameters():  # type: ignore[union-attr]
        assert torch.equal(own, start[name]) == (name in masks), "a unit of importance 1 never moves"


def test_units_of_a_kind_are_compared_and_shared_rows_take_the_largest() -> None:
    assert importances(torch.ones(4), units=1).tolist() == [0.0] * 4
    assert importances(torch.tensor([1.0, 1.0, -1.0, -1.0]), units=2).tolist() == pytest.approx([0.5 * 1.21767] * 4, rel=1e-3)
    assert shared(torch.tensor([0.1, 0.1, 0.7, 0.7, 0.3, 0.3, 0.2, 0.2]), 4, 4).tolist() == pytest.approx(
        [0.7, 0.7, 0.3, 0.3]
    )


def test_a_rule_without_rows_and_a_model_without_its_units_are_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(SetupError, match="ewc: it is given no rows to learn from"):
        make_trainer("sft", trainer_options={"update": [EWC(strength=1)]})
    fused = {"model.layers.0.mlp.gate_up_proj.weight": torch.nn.Parameter(torch.zeros(8, 4))}
    down = {"model.layers.0.mlp.down_proj.weight": torch.nn.Parameter(torch.zeros(4, 4))}
    with pytest.raises(SetupError, match=r"gate_up_proj\.weight makes or reads heads or neurons too"):
        SoftMask().build(0).start({**fused, **down})
    with pytest.raises(SetupError, match=r"no parameter self_attn\.o_proj\.weight"):
        SoftMask().build(0).start(fused)
