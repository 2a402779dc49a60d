"""The output layer in chunks: its numbers are those of the full logits, which never exist."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cases import divergences
from posttrain.estimator.divergence import Divergence, DivergenceName
from posttrain.model.head import (
    Head,
    ReferenceStates,
    alone,
    full_logprobs,
    in_one_pass,
    kernel_fails,
    softmax,
    token_logprobs,
)
from posttrain.model.head.rows import CHUNK_ROWS, NARROW_CHUNK_ROWS
from posttrain.model.head.softmax import softmax_
from posttrain.model.layers.workspace import Workspace
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.scoring import Scorer
from tiny import make_model

ROWS, HIDDEN, VOCABULARY = 13, 8, 30
PLAIN = Divergence()
TO = torch.Tensor.to


def _inputs(dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    torch.manual_seed(0)
    hidden = torch.randn(ROWS, HIDDEN, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN, dtype=dtype, requires_grad=True)
    bias = torch.randn(VOCABULARY, dtype=dtype, requires_grad=True)
    reference = ReferenceStates(torch.randn(ROWS, 5, dtype=dtype), Head(torch.randn(VOCABULARY, 5, dtype=dtype)))
    return {
        "hidden": hidden,
        "weight": weight,
        "bias": bias,
        "targets": torch.randint(0, VOCABULARY, (ROWS,)),
        "reference": reference,
    }


def _naive(
    inputs: dict[str, Any], temperature: float, entropy: bool, reference: bool, by: Divergence = PLAIN
) -> torch.Tensor:
    log_p = ((inputs["hidden"] @ inputs["weight"].T + inputs["bias"]) / temperature).log_softmax(-1)
    columns = [log_p.gather(1, inputs["targets"][:, None])[:, 0]]
    if entropy:
        columns.append(-(log_p.exp() * log_p).sum(1))
    if reference:
        other = inputs["reference"].hidden @ inputs["reference"].head.weight.T / temperature
        columns.append(divergences(log_p, other, by)[by.name])
    return torch.stack(columns, 1)


@pytest.mark.parametrize("asked", [{}, {"entropy": True}], ids=["alone", "beside_entropy"])
def test_the_sum_of_the_squared_probabilities_has_no_gradient(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHUNK_ROWS, "cpu", 3)
    inputs = _inputs()
    head, leaves = Head(inputs["weight"], inputs["bias"]), [inputs[name] for name in ("hidden", "weight", "bias")]
    scored = token_logprobs(inputs["hidden"], head, inputs["targets"], temperature=0.6, collision=True, **asked)
    plain = token_logprobs(inputs["hidden"], head, inputs["targets"], temperature=0.6, **asked)
    logits = (inputs["hidden"] @ inputs["weight"].T + inputs["bias"]) / 0.6
    torch.testing.assert_close(scored[:, -1], logits.softmax(-1).square().sum(-1).log(), rtol=0, atol=1e-12)
    whole = full_logprobs(logits, inputs["targets"], temperature=1.0, entropy=bool(asked), collision=True)
    torch.testing.assert_close(scored, whole, rtol=0, atol=1e-12)
    factors = torch.randn_like(plain)
    with_it = torch.cat([factors, torch.ones_like(factors[:, :1])], 1)
    expected = torch.autograd.grad((plain * factors).sum(), leaves, retain_graph=True)
    for of in (scored, whole):
        for one, other in zip(torch.autograd.grad((of * with_it).sum(), leaves), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 10**6], ids=["row", "three_rows", "all"])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize(("entropy", "reference"), [(False, False), (True, False), (False, True), (True, True)])
def test_chunks_give_the_numbers_and_gradients_of_the_full_logits(
    chunk: int, temperature: float, entropy: bool, reference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHUNK_ROWS, "cpu", chunk)
    inputs = _inputs()
    head = Head(inputs["weight"], inputs["bias"])
    ours = token_logprobs(
        inputs["hidden"],
        head,
        inputs["targets"],
        temperature=temperature,
        entropy=entropy,
        reference=inputs["reference"] if reference else None,
    )
    naive = _naive(inputs, temperature, entropy, reference)
    assert torch.allclose(ours, naive, rtol=0, atol=1e-12)
    upstream = torch.randn_like(naive)
    leaves = [inputs[name] for name in ("hidden", "weight", "bias")]
    for a, b in zip(torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(naive, leaves, upstream), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


KINDS: list[tuple[DivergenceName, float]] = [("kl", 0.5), ("reverse_kl", 0.5), ("jsd", 0.5), ("jsd", 0.1), ("jsd", 0.97)]
DIVERGENCES = [
    Divergence(name=name, beta=beta, temperature=temperature) for name, beta in KINDS for temperature in (1.0, 2.5)
]


@pytest.mark.parametrize("chunk", [3, 10**6], ids=["three_rows", "all"])
@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("by", DIVERGENCES, ids=str)
def test_every_divergence_has_the_numbers_and_gradients_of_the_full_logits(
    by: Divergence, temperature: float, entropy: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two passes and in one, beside what else is asked for."""
    monkeypatch.setitem(CHUNK_ROWS, "cpu", chunk)
    inputs = _inputs()
    head, states = Head(inputs["weight"], inputs["bias"]), dataclasses.replace(inputs["reference"], divergence=by)
    asked = {"temperature": temperature, "entropy": entropy, "reference": states}
    naive = _naive(inputs, temperature, entropy, True, by)
    factors = torch.randn_like(naive)
    leaves = [inputs[name] for name in ("hidden", "weight", "bias")]
    expected = torch.autograd.grad(naive, leaves, factors)
    twice = token_logprobs(inputs["hidden"], head, inputs["targets"], **asked)
    once, columns = in_one_pass(inputs["hidden"], head, inputs["targets"], lambda _, rows: factors[rows], **asked)
    for made, gradients in (
        (twice, torch.autograd.grad(twice, leaves, factors)),
        (columns, torch.autograd.grad(once, leaves)),
    ):
        assert torch.allclose(made, naive, rtol=0, atol=1e-12)
        for a, b in zip(gradients, expected, strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("by", DIVERGENCES, ids=str)
def test_a_model_does_not_diverge_from_itself(by: Divergence) -> None:
    inputs = _inputs()
    head = Head(inputs["weight"], inputs["bias"])
    own = ReferenceStates(inputs["hidden"].detach(), Head(inputs["weight"].detach(), inputs["bias"].detach()), by)
    divergence = token_logprobs(inputs["hidden"], head, inputs["targets"], reference=own)[:, 1]
    assert divergence.abs().max() < 1e-15
    assert torch.autograd.grad(divergence.sum(), inputs["hidden"])[0].abs().max() < 1e-14


@pytest.mark.parametrize("chunk", [1, 3, 10**6], ids=["row", "three_rows", "all"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("entropy", "reference"), [(False, False), (True, False), (False, True), (True, True)])
def test_one_pass_makes_the_gradient_of_the_loss_that_it_is_told(
    chunk: int, temperature: float, entropy: bool, reference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHUNK_ROWS, "cpu", chunk)
    inputs = _inputs()
    naive = _naive(inputs, temperature, entropy, reference)
    factors = torch.randn_like(naive)
    told = list[slice]()

    def weigh(columns: torch.Tensor, rows: slice) -> torch.Tensor:
        told.append(rows)
        return factors[rows] * columns.cos()

    carrier, columns = in_one_pass(
        inputs["hidden"],
        Head(inputs["weight"], inputs["bias"]),
        inputs["targets"],
        weigh,
        temperature=temperature,
        entropy=entropy,
        reference=inputs["reference"] if reference else None,
    )
    assert float(carrier.detach()) == 0 and not columns.requires_grad
    assert torch.allclose(columns, naive, rtol=0, atol=1e-12)
    assert [i for rows in told for i in range(ROWS)[rows]] == list(range(ROWS))
    leaves = [inputs[name] for name in ("hidden", "weight", "bias")]
    expected = torch.autograd.grad((factors * naive.sin()).sum(), leaves)
    for a, b in zip(torch.autograd.grad(-3 * carrier, leaves), expected, strict=True):
        assert torch.allclose(a, -3 * b, rtol=0, atol=1e-11)


def test_gradients_of_one_pass_are_given_once() -> None:
    inputs = _inputs()
    carrier, _ = in_one_pass(inputs["hidden"], Head(inputs["weight"]), inputs["targets"], lambda columns, rows: columns)
    carrier.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="gives its gradients once"):
        carrier.backward()


def test_a_frozen_head_gets_no_gradient_and_its_input_does() -> None:
    inputs = _inputs()
    out = token_logprobs(inputs["hidden"], Head(inputs["weight"].detach()), inputs["targets"], temperature=0.7)
    upstream = torch.randn_like(out)
    expected = torch.autograd.grad(_naive({**inputs, "bias": 0}, 0.7, False, False), inputs["hidden"], upstream)[0]
    [found] = torch.autograd.grad(out, inputs["hidden"], upstream)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12) and inputs["weight"].grad is None


def test_a_frozen_head_makes_its_logits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one pass or two: of N V H products one for the logits and one for the gradient."""
    inputs = _inputs()
    frozen, calls = Head(inputs["weight"].detach()), list[int]()
    made = alone._scored

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        return made(*arguments, **options)

    monkeypatch.setattr(alone, "_scored", counted)
    token_logprobs(inputs["hidden"], frozen, inputs["targets"]).sum().backward()
    in_one_pass(inputs["hidden"], frozen, inputs["targets"], lambda columns, rows: columns)[0].backward()
    assert len(calls) == 2
    token_logprobs(inputs["hidden"], Head(inputs["weight"]), inputs["targets"]).sum().backward()
    assert len(calls) == 4


@pytest.mark.parametrize("blocks", [1, 3, 256], ids=["row", "three_rows", "all"])
@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize("at_once", [False, True])
def test_autocast_decides_the_dtype_of_the_products(
    one_pass: bool, blocks: int, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits of bfloat16 numbers, from float32 weights, whose gradient is float32; however many are widened at a time, and by
    the one operation that a kernel does on a GPU.
    """
    if at_once:
        monkeypatch.setattr(alone, "kernel_fails", lambda device, dtype: None)
    monkeypatch.setitem(NARROW_CHUNK_ROWS, "cpu", 8)
    monkeypatch.setattr(alone, "WIDENED_ROWS", blocks)
    inputs = _inputs(torch.float32)
    head = Head(inputs["weight"], inputs["bias"])
    with torch.autocast("cpu", torch.bfloat16):
        if one_pass:
            carrier, scores = in_one_pass(inputs["hidden"], head, inputs["targets"], lambda columns, rows: columns * 0 + 1)
        else:
            scores = token_logprobs(inputs["hidden"], head, inputs["targets"])
            carrier = scores.sum()
    carrier.backward()
    rounded = (inputs["hidden"].bfloat16() @ inputs["weight"].bfloat16().T).float() + inputs["bias"].bfloat16()
    expected = rounded.log_softmax(-1).gather(1, inputs["targets"][:, None])
    assert torch.allclose(scores, expected, rtol=0, atol=1e-6)
    for name in ("hidden", "weight", "bias"):
        exact = torch.autograd.grad(_naive(inputs, 1.0, False, False).sum(), inputs[name])[0]
        assert inputs[name].grad.dtype == torch.float32
        assert 1e-5 < (inputs[name].grad - exact).abs().max() < 0.05, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_log_probs_are_exact_where_p_is_no_number_any_more(dtype: torch.dtype) -> None:
    """Of a target that the model finds impossible; its row's gradient is -e_y and p of the others."""
    inputs = _inputs(torch.float64)
    large = {
        name: (inputs[name].detach() * (40 if name == "weight" else 1)).to(dtype).requires_grad_()
        for name in ("hidden", "weight")
    }
    ours = token_logprobs(large["hidden"], Head(large["weight"]), inputs["targets"])[:, 0]
    wide = torch.promote_types(torch.float32, dtype)
    log_p = (large["hidden"] @ large["weight"].T).to(wide).log_softmax(-1)
    naive = log_p.gather(1, inputs["targets"][:, None])[:, 0]
    assert naive.min() < -110 and naive.max() > -60
    assert torch.allclose(ours, naive, rtol=1e-6, atol=0)
    ours.sum().backward()
    found = large["hidden"].grad
    expected = torch.autograd.grad(naive.sum(), large["hidden"])[0]
    assert torch.allclose(
        found, expected, rtol=0.05 if dtype == torch.bfloat16 else 1e-4, atol=1.0 if dtype == torch.bfloat16 else 1e-4
    )


def test_the_kernel_is_tried_where_there_is_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not taken where it fails, or is wrong; on a CPU torch's operations stand for it."""
    assert kernel_fails(torch.device("cpu"), torch.bfloat16) == "it is for logits of 16 bits on CUDA"
    assert kernel_fails(torch.device("cuda"), torch.float32) == "it is for logits of 16 bits on CUDA"
    tried = kernel_fails.__wrapped__
    monkeypatch.setattr(torch.Tensor, "to", lambda self, to: self.clone() if isinstance(to, torch.device) else TO(self, to))
    cuda = torch.device("cuda")
    assert tried(cuda, torch.bfloat16) is None
    for wrong, said in (
        (lambda *given: softmax_(*given) + 0.01, "is 0.01 from log-probs, 0 of probabilities"),
        (
            lambda logits, *given: softmax_(logits, *given) * logits.mul_(1.1).isfinite().all(),
            "is 0 from log-probs, 0.104 of probabilities",
        ),
        (lambda *given: 1 // 0, "fails (integer division or modulo by zero)"),
    ):
        calls = iter([softmax_, softmax_, softmax_, wrong])  # expected and found, of two sizes
        monkeypatch.setattr(softmax, "softmax_", lambda *given, calls=calls: next(calls)(*given))
        assert said in str(tried(cuda, torch.bfloat16))


def test_bfloat16_is_scored_in_float32_from_the_logits_on() -> None:
    inputs = _inputs(torch.bfloat16)
    out = token_logprobs(inputs["hidden"], Head(inputs["weight"], inputs["bias"]), inputs["targets"])
    assert out.dtype == torch.float32
    out.sum().backward()
    assert inputs["hidden"].grad.dtype == torch.bfloat16


def test_a_second_derivative_is_an_error() -> None:
    inputs = _inputs()
    out = token_logprobs(inputs["hidden"], Head(inputs["weight"]), inputs["targets"])
    [first] = torch.autograd.grad((out**2).sum(), inputs["hidden"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


class _Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *made])
        return out


def test_the_logits_of_the_batch_never_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, width, scored = 4, 300, 250
    model, _ = make_model()
    vocabulary = model.lm_head.weight.shape[0]
    monkeypatch.setitem(CHUNK_ROWS, "cpu", 20)
    ids = torch.randint(0, 200, (rows, width))
    at = torch.arange(width - scored, width).repeat(rows)
    row = torch.arange(rows).repeat_interleave(scored)
    mask = torch.ones(rows, scored, dtype=torch.bool)
    index = torch.arange(rows * scored)
    inputs = ModelInputs(ids, torch.ones_like(ids, dtype=torch.bool), row, at, index, torch.randint(0, 200, (rows * scored,)))
    with _Largest() as largest:
        Scorer().score(model, inputs, mask).logp.sum().backward()
    assert largest.elements < rows * scored * vocabulary / 2
    assert largest.elements < rows * width * width  # what eager attention would make


def test_memory_is_used_again_when_nobody_has_it_any_more() -> None:
    """The gradient of the weight is made in it and stays what it was for as long as somebody has it."""
    inputs, at = _inputs(), list[int]()
    weight = inputs["weight"]

    def learn(factor: float) -> None:
        carrier, _ = in_one_pass(inputs["hidden"], Head(weight), inputs["targets"], lambda columns, _: 0 * columns + factor)
        carrier.backward()
        at.append(gradient().data_ptr())

    def gradient() -> Tensor:
        assert weight.grad is not None
        return weight.grad

    learn(1.0)
    once = gradient().clone()
    for _ in range(3):
        weight.grad = None
        learn(1.0)
        assert torch.equal(gradient(), once)
    assert len(set(at[1:])) == 1  # the first call may have found less memory than it needed
    held = gradient()
    learn(2.0)  # added to what was there, by autograd
    assert gradient() is held and torch.allclose(held, 3 * once, rtol=1e-14, atol=0)
    weight.grad = None
    learn(5.0)
    assert torch.allclose(held, 3 * once, rtol=1e-14, atol=0) and gradient().data_ptr() != held.data_ptr()


def kept(space: Workspace) -> int:
    return sum(block.memory.nbytes for block in space._blocks)


def test_no_more_memory_is_kept_than_was_in_use_at_once() -> None:
    space, cpu = Workspace(), torch.device("cpu")
    small = [space.empty(size, dtype=torch.float64, device=cpu) for size in (10, 20)]
    small[0].fill_(1)
    view = small[0][3:]
    at = small[1].data_ptr()
    del small
    assert space.empty(5, 4, dtype=torch.float32, device=cpu).data_ptr() == at  # 80 of the 160 bytes
    assert kept(space) == 240
    large = space.empty(100, dtype=torch.float64, device=cpu)
    assert kept(space) == 880 and torch.equal(
        view, torch.ones(7, dtype=torch.float64)
    )  # the view holds its block; the other is gone
    del view
    assert space.empty(10, dtype=torch.float64, device=cpu).shape == (10,) and kept(space) == 880
    space.clear()
    assert kept(space) == 800
    del large
    space.clear()
    assert kept(space) == 0


def test_each_thread_has_a_workspace_of_its_own() -> None:
    space, cpu, sizes = Workspace(), torch.device("cpu"), list[int]()
    space.empty(10, dtype=torch.uint8, device=cpu)
    other = threading.Thread(target=lambda: sizes.append(kept(space)))
    other.start()
    other.join()
    assert (kept(space), sizes) == (10, [0])
