"""Products of float32 by oneDNN: as torch's, in every form that the package multiplies in, and torch's where it is slow."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from posttrain.model.layers import products
from posttrain.model.layers.products import TILE, Linear, add_product, multiply, product, take_products, taken
from posttrain.model.scoring import is_linear
from tiny import make_model

ROUNDING = 1e-6
"""Of the norm: of sums of 800 torch's own products are off by 2.5e-7."""


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On every processor, whichever library is the faster one there."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.fail("This torch has no oneDNN.")
    monkeypatch.setattr(products, "here", lambda: True)
    yield


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


def test_a_model_is_what_it_was() -> None:
    model, _ = make_model(dtype="float32")
    plain = copy.deepcopy(model)
    take_products(model)
    kinds = [type(module) for module in model.modules() if isinstance(module, nn.Linear)]
    assert set(kinds) == {Linear} and is_linear(model.get_output_embeddings())
    assert model.state_dict().keys() == plain.state_dict().keys()
    ids = torch.randint(model.config.vocab_size, (4, 100), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, expected = model(ids).logits, plain(ids).logits
        assert torch.equal(copy.deepcopy(model)(ids).logits, ours)
    assert (ours - expected).abs().max() < 1e-5
