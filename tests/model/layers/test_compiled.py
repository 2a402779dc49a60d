"""Layers that are compiled give what they give as they are written; and where they are not, it is said."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

import flash
from posttrain import PostTrainer
from posttrain.data.rows import Row
from posttrain.estimator.batch import Batch
from posttrain.model.frozen.reference import Reference
from posttrain.model.layers import compiled
from posttrain.model.layers.compiled import as_written, compile_layers, layers_of
from posttrain.model.layout.attention import take_layouts
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.layout.make import make_layout
from posttrain.model.layout.packed import packed_inputs
from posttrain.model.proofs.compiled import use_compiled
from posttrain.model.scoring import Scorer
from posttrain.settings.model import Adapter
from posttrain.telling import hearing
from tiny import make_model

SIZES: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
VARLEN = make_layout("shared", pad_id=0, varlen=True)
LENGTHS = ([(3, 4), (3, 2), (5, 6)], [(7, 9), (7, 130)], [(2, 3)], [(4, 5), (4, 300), (9, 9)])


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The flash kernels by their formulas, and graphs that are traced forward and backward, and run as they are."""
    known = compiled._compiled
    known.cache_clear()
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    with flash.kernels():
        yield
    known.cache_clear()


def laid_out(lengths: list[tuple[int, int]], *, varlen: bool = True) -> tuple[ModelInputs, torch.Tensor]:
    """Rows of prompts and answers of these lengths."""
    rows = [
        Row(np.arange(p, dtype=np.int32) % 60, np.arange(a, dtype=np.int32) % 50, np.ones(a, np.bool_)) for p, a in lengths
    ]
    mask = torch.arange(max(a for _, a in lengths)) < torch.tensor([a for _, a in lengths])[:, None]
    return packed_inputs(rows, Batch(loss_mask=mask), share=True, varlen=varlen), mask


def scored(model: Any, *given: Any) -> list[torch.Tensor]:
    """Log-probs and gradients."""
    logp = Scorer().score(model, *given).logp
    return [logp.detach(), *torch.autograd.grad(logp.sum(), [p for p in model.parameters() if p.requires_grad])]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_they_are_one_graph_for_rows_of_any_length_and_give_the_same(checkpointing: bool) -> None:
    model, _ = make_model(**SIZES)
    take_layouts(model.train())
    if checkpointing:
        model.gradient_checkpointing_enable()
    cases = [laid_out(lengths) for lengths in LENGTHS]
    plain = [scored(model, *case) for case in cases]
    compile_layers(layers_of(model))
    for case, expected in zip(cases, plain, strict=True):
        torch.testing.assert_close(scored(model, *case), expected, rtol=1e-11, atol=1e-11)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 2  # with answers that share a prompt, and without


def test_without_such_a_layout_and_after_they_are_taken_back_they_are_as_written() -> None:
    model, _ = make_model(**SIZES)
    take_layouts(model.train())
    case, blocks = laid_out(LENGTHS[0]), laid_out(LENGTHS[0], varlen=False)
    compile_layers(layers_of(model))
    expected = scored(model, *blocks)
    model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=3, do_sample=False)
    assert not counters["frames"]
    as_written(layers_of(model))
    torch.testing.assert_close(scored(model, *case), expected, rtol=1e-11, atol=1e-11)
    assert not counters["frames"]


def test_a_copy_has_weights_of_its_own() -> None:
    model, _ = make_model(**SIZES)
    take_layouts(model.train())
    compile_layers(layers_of(model))
    case = laid_out(LENGTHS[0])
    other, before = copy.deepcopy(model), scored(model, *case)[0]
    with torch.no_grad():
        for layer in other.model.layers:
            layer.mlp.down_proj.weight.mul_(3)
    assert torch.equal(scored(model, *case)[0], before)
    assert (scored(other, *case)[0] - before).abs().max() > 1e-3


def used(model: Any, *, reference: Any = None, layout: Any = VARLEN, ranks: int = 1, deepspeed: bool = False) -> list[str]:
    """What is told."""
    how: dict[str, Any] = {"layout": layout, "bf16": False, "ranks": ranks, "deepspeed": deepspeed}
    with hearing() as heard:
        taken = use_compiled(model, reference, 64, **how)
    assert taken == (not heard) == all(isinstance(one.forward, compiled._Forward) for one in layers_of(model))
    return [one.sentence for one in heard]


@pytest.mark.parametrize("adapter", [None, Adapter(r=4)])
def test_they_are_tried_and_a_reference_is_compiled_too(adapter: Adapter | None) -> None:
    model, _ = make_model(**SIZES, adapter=adapter)
    take_layouts(model)
    reference, before = Reference(model), torch.get_rng_state()
    assert not used(model, reference=reference)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(isinstance(one.forward, compiled._Forward) for one in layers_of(reference.model))
    assert counters["stats"]["unique_graphs"] and not counters["graph_break"]


def unshared(kind: Any, *given: Any, layout: Any, **options: Any) -> Any:
    """A layer whose answers see nothing of their prompts."""
    return kind.forward(*given, layout=dataclasses.replace(layout, shared=None), **options)


def other_gradients(kind: Any, factor: float, *given: Any, **options: Any) -> Any:
    """A layer with other gradients."""
    made = kind.forward(*given, **options)
    if made.requires_grad:
        made.register_hook(lambda gradient: gradient * factor)
    return made


def test_what_cannot_be_compiled_is_told_and_is_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(**options: Any) -> str:
        model, _ = make_model(**SIZES)
        take_layouts(model)
        [sentence] = used(model, **options)
        assert "Qwen2ForCausalLM: " in sentence and sentence.endswith(", so that its layers are not compiled.")
        return sentence

    assert "several processes, or DeepSpeed, train it" in told(ranks=2) == told(deepspeed=True)
    for layout in ("shared", "padded"):
        assert "that takes packed rows, in 16 bits, on CUDA" in told(layout=make_layout(layout, pad_id=0))
    noisy, _ = make_model(**SIZES)
    take_layouts(noisy)
    noisy.model.layers[0].self_attn.o_proj.register_forward_hook(lambda *given: given[-1] * torch.rand(()))
    assert "some of it is dropped out at random" in used(noisy)[0]
    frozen, _ = make_model(**SIZES)
    take_layouts(frozen.requires_grad_(False))
    assert "nothing in them is trained" in used(frozen)[0]
    changed, _ = make_model(**SIZES)
    take_layouts(changed)
    changed.model.layers[0].forward = changed.model.layers[0].forward
    assert "its layers are changed by somebody else" in used(changed)[0]
    kind = type(changed.model.layers[1])
    monkeypatch.setattr(compiled, "_compiled", lambda kind: lambda *given, **options: 1.2 * kind.forward(*given, **options))
    assert "compiled, its log-probs differ by " in told()
    monkeypatch.setattr(compiled, "_compiled", lambda kind: partial(unshared, kind))
    assert "compiled, its log-probs differ by " in told()
    monkeypatch.setattr(compiled, "_compiled", lambda kind: partial(other_gradients, kind, 1.2))
    assert re.search(r"compiled, a gradient differs by 0\.[1-5]", told())
    monkeypatch.setattr(compiled, "_compiled", lambda kind: partial(other_gradients, kind, math.nan))
    assert "compiled, a gradient differs by nan of it" in told()
    monkeypatch.setattr(compiled, "_compiled", lambda kind: lambda *given, **options: 1 // 0)
    assert "torch.compile fails (integer division or modulo by zero)" in told()
    assert kind.__name__ == "Qwen2DecoderLayer"


def test_a_trainer_on_a_cpu_says_that_it_does_not_compile(make_trainer: Any, caplog: pytest.LogCaptureFixture) -> None:
    trainer: PostTrainer = make_trainer("sft", trainer_options={"compile": True})
    trainer.train()
    assert caplog.text.count("so that its layers are not compiled") == 1
