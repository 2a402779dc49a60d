"""Products of float32 by oneDNN: as torch's, in every form that the package multiplies in, and torch's where it is slow."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posttrain import PostTrainer
from posttrain.model.layers import products
from posttrain.model.layers.products import TILE, Linear, add_product, multiply, product, take_products, taken
from posttrain.model.scoring import is_linear
from posttrain.settings.model import Adapter
from tiny import make_model, parameters

ROUNDING = 1e-6
"""Of the norm: of sums of 800 torch's own products are off by 2.5e-7."""


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On every processor, whichever library is the faster one there."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.fail("This torch has no oneDNN.")
    monkeypatch.setattr(products, "here", lambda: True)
    yield


class Own(Tensor):
    """A tensor that says itself what a product with it is."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Of a normal distribution."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def is_close(ours: Tensor, exact: Tensor) -> bool:
    """Within the rounding of float32 of what float64 gives, and float32 itself."""
    assert ours.dtype == torch.float32 and exact.dtype == torch.float64 and ours.shape == exact.shape
    return float((ours.double() - exact).norm() / exact.norm()) < ROUNDING


@pytest.mark.parametrize("rows", [(700,), (5, 140), (1, 700)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_a_product_is_that_of_float64(rows: tuple[int, ...], bias: bool, turned: bool) -> None:
    left, right = drawn(*rows, 64), drawn(64, 96).T if turned else drawn(96, 64)
    added = drawn(96) if bias else None
    assert taken(left, right)
    exact = left.double() @ right.T.double() + (0 if added is None else added.double())
    assert is_close(product(left, right, added), exact)


@pytest.mark.parametrize("bias", [drawn(192)[::2], drawn(1).expand(96)])
def test_a_bias_lies_in_memory_as_it_likes(bias: Tensor) -> None:
    left, right = drawn(700, 64), drawn(96, 64)
    assert is_close(product(left, right, bias), left.double() @ right.T.double() + bias.double())


@pytest.mark.parametrize("entries", [TILE // 2, TILE, TILE + 1, 2 * TILE + 700])
def test_what_has_a_place_is_multiplied_into_it(entries: int) -> None:
    left, right, room = drawn(70, 32), drawn(entries, 32), torch.full((80, entries), torch.nan)
    made = multiply(left, right, out=room[:70])
    assert taken(left, right) and made.data_ptr() == room.data_ptr()
    assert is_close(room[:70], left.double() @ right.T.double()) and room[70:].isnan().all()


@pytest.mark.parametrize("entries", [TILE // 2, TILE, TILE + 1, 2 * TILE + 700])
@pytest.mark.parametrize("add", [False, True])
def test_a_product_is_added_to_a_total_or_takes_its_place(entries: int, add: bool) -> None:
    left, right = drawn(70, entries), drawn(70, 32)
    before = drawn(entries, 32) if add else torch.full((entries, 32), torch.nan)
    total = before.clone()
    add_product(total, left, right, add=add)
    assert taken(left.T, right.T)
    assert is_close(total, left.T.double() @ right.double() + (before.double() if add else 0))


@pytest.mark.parametrize("sizes", [(64, 96), (96, 64)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_has_the_gradients_of_float64(sizes: tuple[int, int], bias: bool) -> None:
    layer = nn.Linear(*sizes, bias=bias)
    exact = copy.deepcopy(layer).double()
    take_products(model := nn.Sequential(layer))
    assert type(model[0]) is Linear
    states, upstream = drawn(4, 200, sizes[0]), drawn(4, 200, sizes[1], seed=1)
    given = [one.requires_grad_() for one in (states.clone(), states.double())]
    made = [one(state) for one, state in zip((layer, exact), given, strict=True)]
    assert "_Linear" in type(made[0].grad_fn).__name__
    for one in made:
        one.backward(upstream.to(one.dtype))
    found = [
        (one, state.grad, *(p.grad for p in own.parameters()))
        for one, state, own in zip(made, given, (layer, exact), strict=True)
    ]
    assert all(is_close(ours.detach(), plain.detach()) for ours, plain in zip(*found, strict=True))


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    layer = nn.Linear(64, 96).requires_grad_(False)
    take_products(nn.Sequential(layer))
    states = drawn(300, 64).requires_grad_()
    layer(states).sum().backward()
    assert states.grad is not None and layer.weight.grad is None and layer.bias.grad is None
    layer.requires_grad_()
    layer(drawn(300, 64)).sum().backward()
    assert layer.weight.grad is not None and layer.bias.grad is not None


@pytest.mark.parametrize("trained", ["weight", "states", "both"])
def test_nothing_is_kept_for_a_gradient_that_nobody_wants(trained: str) -> None:
    layer, kept = nn.Linear(64, 96, bias=False).requires_grad_(trained != "states"), list[tuple[int, ...]]()
    take_products(nn.Sequential(layer))
    states = drawn(300, 64).requires_grad_(trained != "weight")

    def noted(one: Tensor) -> Tensor:
        kept.append(tuple(one.shape))
        return one

    with torch.autograd.graph.saved_tensors_hooks(noted, lambda one: one):
        layer(states)
    assert kept == {"weight": [(300, 64)], "states": [(96, 64)], "both": [(300, 64), (96, 64)]}[trained]


def test_transforms_forward_derivatives_and_traces_are_torchs() -> None:
    layer, states = nn.Linear(64, 96), drawn(700, 64)
    found = []
    for kind in (nn.Linear, Linear):
        layer.__class__ = kind
        with torch.autograd.forward_ad.dual_level(), torch.no_grad():
            dual = layer(torch.autograd.forward_ad.make_dual(states, states))
            tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
        traced: Any = torch.jit.trace(layer, states)
        slope = torch.func.grad(lambda given: layer(given).square().sum())(states)
        found.append([tangent, slope, traced(states)])
    assert all(torch.equal(plain, ours) for plain, ours in zip(*found, strict=True))


def test_a_second_derivative_is_torchs() -> None:
    layer, states = nn.Linear(64, 96), drawn(300, 64)
    found = []
    for kind in (nn.Linear, Linear):
        layer.__class__ = kind
        leaf = states.clone().requires_grad_()
        [slope] = torch.autograd.grad(layer(leaf).square().sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), (leaf, layer.weight)))
    for plain, ours in zip(*found, strict=True):
        assert torch.allclose(plain, ours, rtol=1e-5, atol=1e-3 * float(plain.abs().max()))


def test_it_is_torchs_where_onednn_is_slow_or_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = drawn(700, 64), drawn(96, 64)
    assert taken(left, right)
    assert not taken(left.double(), right.double()) and not taken(left.bfloat16(), right.bfloat16())
    assert not taken(left[:3], right)  # small
    assert not taken(left[:0], right)
    assert not taken(left, drawn(96, 128)[:, :64]) and not taken(left, drawn(64, 128)[:, :96].T)  # no dense memory
    assert not taken(left.to("meta"), right.to("meta"))
    assert not taken(drawn(40_000, 64), drawn(2, 64)) and not taken(drawn(40_000, 2), drawn(64, 2))  # narrow
    assert not taken(left, right.as_subclass(Own)) and not taken(left.as_subclass(Own), right)
    with pytest.raises(RuntimeError, match="700x64 and 128x96"):
        product(left, drawn(96, 128))
    with pytest.raises(RuntimeError, match="out="):
        multiply(left, right.clone().requires_grad_(), out=torch.empty(700, 96))
    with torch.backends.mkldnn.flags(enabled=False):
        assert not taken(left, right)
    monkeypatch.setattr(products, "here", lambda: False)
    assert not taken(left, right)
    assert torch.equal(product(left, right), left @ right.T)
    model = nn.Sequential(nn.Linear(64, 96))
    take_products(model)
    assert type(model[0]) is nn.Linear


def test_autocast_and_vectors_are_torchs() -> None:
    layer, states = nn.Linear(64, 96), drawn(700, 64)
    plain = copy.deepcopy(layer)
    take_products(nn.Sequential(layer))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(states), plain(states))
    assert torch.equal(layer(states[0]), plain(states[0]))


def linears(model: Any) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


@pytest.mark.parametrize("adapter", [None, Adapter(r=4)])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_loaded_model_has_them_and_is_what_it_was(adapter: Adapter | None, checkpointed: bool) -> None:
    model, _ = make_model(dtype="float32", adapter=adapter)
    assert all(type(one) is Linear for one in linears(model) if not hasattr(one, "base_layer"))
    assert adapter is not None or is_linear(model.get_output_embeddings())
    plain = copy.deepcopy(model)
    for one in linears(plain):
        one.__class__ = nn.Linear
    assert model.state_dict().keys() == plain.state_dict().keys()
    ids = torch.randint(100, (16, 200), generator=torch.Generator().manual_seed(0))
    assert all(
        taken(torch.empty(ids.numel(), one.in_features), one.weight) for one in linears(model) if min(one.weight.shape) > 8
    )
    found = []
    for one in (model, plain):
        if checkpointed:
            one.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            one.enable_input_require_grads()
        one.train()(input_ids=ids, labels=ids).loss.backward()
        found.append([p.grad for p in one.parameters() if p.requires_grad])
    assert found[0] and all(float((a - b).norm()) <= 1e-5 * float(b.norm()) + 1e-9 for a, b in zip(*found, strict=True))
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(model)(ids).logits, model(ids).logits)


def test_a_model_that_is_handed_over_has_them_and_goes_on_to_the_last_bit(make_trainer: Callable[..., PostTrainer]) -> None:
    def trained(output: str, *, start: int | None = None) -> Tensor:
        model, tokenizer = make_model(dtype="float32", hidden_size=64)
        for one in linears(model):
            one.__class__ = nn.Linear
        options = {"rows_per_step": 24, "output": output, "max_steps": 4, "save_steps": 2, "save_strategy": "steps"}
        trainer = make_trainer("sft", model=(model, tokenizer), **options)
        assert {type(one) for one in linears(model)} == {Linear}
        folder = Path(str(trainer.args.output_dir))
        if start is not None:
            trainer.run_files.resume_at(start)
        trainer.train(resume_from_checkpoint=None if start is None else str(folder / f"checkpoint-{start}"))
        return parameters(trainer.model)

    calls, oneself = list[int](), products._Linear.apply
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(products._Linear, "apply", lambda *given: (calls.append(1), oneself(*given))[1])
        whole = trained("run")
    assert len(calls) == 4 * 14  # every step, every layer
    assert torch.equal(trained("run", start=2), whole)
