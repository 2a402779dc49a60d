"""What an adapter makes of a matrix is its paper's: each formula written out, on the query matrix of a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters import moved, small
from posttrain.model.weights import engine_weights

NAME = "model.layers.0.self_attn.q_proj"
Own = Callable[[str], Tensor]


def lora(w: Tensor, own: Own) -> Tensor:
    return w + 32 / 4 * own("lora_B") @ own("lora_A")


def rslora(w: Tensor, own: Own) -> Tensor:
    """Divided by the root of the rank."""
    return w + 32 / 4**0.5 * own("lora_B") @ own("lora_A")


def dora(w: Tensor, own: Own) -> Tensor:
    """A direction of each row, by LoRA, and its length."""
    direction = lora(w, own)
    return own("lora_magnitude_vector")[:, None] * direction / direction.norm(dim=1, keepdim=True)


def vera(w: Tensor, own: Own) -> Tensor:
    """Two random matrices that all layers share, scaled by two vectors."""
    a, b = own("vera_A")[:, : w.shape[1]], own("vera_B")[: w.shape[0]]
    return w + torch.diag(own("vera_lambda_b")) @ b @ torch.diag(own("vera_lambda_d")) @ a


def loha(w: Tensor, own: Own) -> Tensor:
    """Entries of two products multiplied; peft's alpha is 8."""
    return w + 8 / 4 * (own("hada_w1_a") @ own("hada_w1_b")) * (own("hada_w2_a") @ own("hada_w2_b"))


def hra(w: Tensor, own: Own) -> Tensor:
    """A chain of reflections before the matrix."""
    chain = torch.eye(w.shape[1])
    for column in own("hra_u").T:
        unit = column / column.norm()
        chain = chain @ (torch.eye(len(unit)) - 2 * unit[:, None] * unit)
    return w @ chain


def hira(w: Tensor, own: Own) -> Tensor:
    """The matrix's own entries, times those of a product of low rank."""
    return w + w * (own("hira_B") @ own("hira_A"))


def osf(w: Tensor, own: Own) -> Tensor:
    """The largest singular directions as they were, and the others as they are trained."""
    u, s, v = torch.linalg.svd(w)
    frozen = u[:, :8] @ torch.diag(s[:8]) @ v[:8]
    return frozen + own("osf_svd_params.default.U_low") @ torch.diag(own("default.S_low")) @ own("default.V_low")


FORMULAS: dict[str, Callable[[Tensor, Own], Tensor]] = {
    one.__name__: one for one in (lora, rslora, dora, vera, loha, hra, hira, osf)
}


def tensors(model: Any, own: str) -> Tensor:
    within = {name: tensor for name, tensor in model.state_dict().items() if own in name and "init" not in name}
    named = {name: tensor for name, tensor in within.items() if f"{NAME}." in name} or within
    return next(iter(named.values())).float()


@pytest.mark.parametrize("case", FORMULAS)
def test_the_matrix_is_the_papers(case: str) -> None:
    before = dict(small(None)[0].state_dict())[f"{NAME}.weight"]
    model, _ = small(case)
    moved(model)
    after = dict(engine_weights(model))[f"{NAME}.weight"]
    assert float((after - before).abs().max()) > 1e-4
    torch.testing.assert_close(after, FORMULAS[case](before, lambda name: tensors(model, name)), rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", ["pissa", "olora"])
def test_what_an_init_takes_out_of_the_base_is_the_papers(case: str) -> None:
    """PiSSA: the largest singular values and their directions. OLoRA: of a QR decomposition the first columns."""
    before = dict(small(None)[0].state_dict())[f"{NAME}.weight"]
    model, _ = small(case)
    taken = before - model.state_dict()[f"base_model.model.{NAME}.base_layer.weight"]
    u, s, v = torch.linalg.svd(before)
    q, r = torch.linalg.qr(before)
    expected = u[:, :4] @ torch.diag(s[:4]) @ v[:4] if case == "pissa" else 32 / 4 * q[:, :4] @ r[:4]
    torch.testing.assert_close(taken, expected, rtol=0, atol=2e-6)
