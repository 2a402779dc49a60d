"""The memory of a process by the formulas, against sums made by hand and against what is measured."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from activation_memory import CHARACTERS, compared
from transformers import GPT2Config, MixtralConfig, Qwen2Config

import flash
from posttrain.execution.memory import activations as formula
from posttrain.execution.memory.activations import Activations, Shape, activations, of_attention
from posttrain.execution.memory.process import Held, Room, checkpointing, held, room
from posttrain.model.head.rows import CHUNK_ROWS, NARROW_CHUNK_ROWS
from posttrain.model.layout.blocks import Blocks
from posttrain.model.layout.varlen import Varlen
from posttrain.settings.distributed import DistributedConfig


def of(mode: str, processes: int, **options: Any) -> Held:
    defaults = {"trained": 1000, "number": 2}
    return held(DistributedConfig.model_validate({"mode": mode}), processes, **{**defaults, **options})


@pytest.mark.parametrize(
    ("mode", "processes", "options", "expected"),
    [
        ("ddp", 1, {"number": 4}, Held(4000, 4000, 8000, 0)),
        ("ddp", 8, {"number": 4}, Held(4000, 4000, 8000, 0)),
        ("zero1", 4, {}, Held(2000, 2000, 3000, 0)),
        ("zero2", 4, {}, Held(2000, 500, 3000, 0)),
        ("zero3", 4, {"reference": 2000}, Held(500, 500, 3000, 500)),
        ("zero2", 4, {"reference": 2000}, Held(2000, 500, 3000, 2000)),
        ("fsdp2", 4, {"number": 4}, Held(1000, 1000, 2000, 0)),
        ("zero3", 1, {}, Held(2000, 2000, 4000, 0)),  # one process shares nothing, and DeepSpeed has no part
        ("zero3", 4, {"trained": 100, "frozen": 1800}, Held(500, 50, 300, 0)),
        ("ddp", 1, {"trained": 100, "number": 4, "frozen": 1800}, Held(2200, 400, 800, 0)),  # an adapter on bfloat16
    ],
)
def test_what_a_process_holds(mode: str, processes: int, options: dict[str, Any], expected: Held) -> None:
    assert of(mode, processes, **options) == expected


def test_it_is_told_in_gigabytes_without_what_is_not_there() -> None:
    told = str(of("zero3", 64, trained=70_000_000_000))
    assert told == "weights 2.19 GB, gradients 2.19 GB, optimizer 13.1 GB"


def test_no_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="processes is 0, expected at least 1"):
        of("ddp", 0)


def test_what_is_offloaded_is_not_on_the_device() -> None:
    def on_device(mode: str) -> Held:
        config = DistributedConfig.model_validate({"mode": mode, "offload": True})
        return held(config, 4, trained=1000, number=2, reference=2000, on_device=True)

    assert on_device("zero1") == Held(2000, 2000, 0, 2000)
    assert on_device("zero2") == Held(2000, 0, 0, 2000)
    assert on_device("zero3") == on_device("fsdp2") == Held(0, 0, 0, 0)


SMALL = {"hidden_size": 64, "intermediate_size": 224, "num_hidden_layers": 4, "num_attention_heads": 2}
GROUPED = {**SMALL, "architecture": "llama", "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 1}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize(
    "case",
    [
        {"sizes": SMALL},
        {"sizes": GROUPED, "bf16": True},
        {"sizes": GROUPED, "layout": "padded"},
        {"sizes": SMALL, "adapter": {"r": 8}},
        {"sizes": GROUPED, "adapter": {"r": 4}, "dtype": "bfloat16"},
        {"sizes": {**SMALL, "architecture": "llama", "intermediate_size": 1024}, "tokenizer": CHARACTERS},
    ],
    ids=["qwen2", "llama in bf16", "llama, padded", "an adapter", "an adapter on bfloat16", "a large vocabulary"],
)
def test_activations_are_what_is_measured(case: dict[str, Any], checkpointing: bool, tmp_path: Path) -> None:
    found = compared(folder=tmp_path, rows=6, length=96, checkpointing=checkpointing, **case)
    assert found.formula == pytest.approx(found.measured, rel=0.25)


def test_activations_by_hand() -> None:
    shape = Shape(hidden=8, intermediate=16, layers=3, heads=2, kv_heads=1, vocabulary=10, head=4)
    layer = 2 * 8 * 8 + 4 * (2 * 8 + 16) + 4 * (3 * 8 + 2 * 4) + 4 * 2 + 3 * 4 * 16
    ends, chunk, head, step = (4 + 12) * 8, 4 * 10, 4 * 10 * 8, 2 * 4 * 16 + 4 * 8
    packed = partial(activations, tokens=5, longest=5, layout="packed", stored=4, computed=4)
    of, gpu = packed(shape, device="cpu"), packed(shape, device="cuda")
    assert of.plain == 5 * 3 * layer + head + 5 * chunk + max(5 * ends, 5 * step)
    assert of.checkpointed == 5 * 3 * 4 * 8 + head + 5 * chunk + max(5 * ends, 5 * (layer + step))
    assert gpu.plain == 5 * 3 * layer + max(head + 5 * (ends + chunk), 5 * step)
    assert gpu.checkpointed == 5 * 3 * 4 * 8 + max(head + 5 * (ends + chunk), 5 * (layer + step))
    tied = packed(replace(shape, tied=True), device="cuda")
    assert tied.plain == 5 * 3 * layer + head + max(5 * (ends + chunk), 5 * step)
    assert tied.checkpointed == 5 * 3 * 4 * 8 + head + max(5 * (ends + chunk), 5 * (layer + step))
    assert packed(replace(shape, tied=True), device="cpu") == of
    eager = activations(replace(shape, eager=True), tokens=5, longest=7, layout="padded", stored=4, computed=4)
    assert eager.plain - of.plain == 5 * 3 * (4 * 4 * 8 + 4 * 7 * 2 - 4 * (3 * 8 + 2 * 4) - 4 * 2)


@pytest.mark.parametrize(("prompt", "group", "answer"), [(64, 8, 128), (512, 8, 64), (2048, 16, 32)])
def test_what_attention_keeps_of_answers_that_share_a_prompt(prompt: int, group: int, answer: int) -> None:
    """Block by block each answer has the prompt's keys and values; the kernel for stretches of any length copies none."""
    shape = Shape(hidden=64, intermediate=64, layers=1, heads=4, kv_heads=2, vocabulary=10, head=16)
    tokens, standing = prompt + group * answer, ([prompt], [(0, answer)] * group)
    sizes: Any = {"layout": "shared", "longest": prompt + answer, "prompt": prompt, "group": group}

    def kept(layout: Any, dtype: torch.dtype) -> int:
        held: dict[int, int] = {}

        def keep(one: torch.Tensor) -> torch.Tensor:
            held[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
            return one

        leaves = [torch.randn(1, tokens, n, 16, dtype=dtype).transpose(1, 2).requires_grad_() for n in (4, 2, 2)]
        with flash.kernels(), torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
            joined = layout.attend(*leaves)
            return sum(held.values()) + (0 if joined.untyped_storage().data_ptr() in held else joined.nbytes)

    by_blocks = tokens * of_attention(shape, **sizes, computed=4, device="cpu")
    assert by_blocks == pytest.approx(kept(Blocks.of(*standing), torch.float32), rel=0.1)
    by_kernel = tokens * of_attention(shape, **sizes, computed=2, device="cuda")
    assert by_kernel == pytest.approx(kept(Varlen.of(*standing), torch.bfloat16), rel=0.01)


def test_the_logits_are_a_chunk_unless_all_of_them_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHUNK_ROWS, "cpu", 1)
    shape = Shape(hidden=8, intermediate=1, layers=1, heads=1, kv_heads=1, vocabulary=1000, head=8)

    def more(**options: Any) -> float:
        of = partial(activations, shape, tokens=50, longest=5, layout="packed", stored=4, computed=4)
        return of(**options).plain - of().plain

    assert more(scores=2) == 4 * 5 * 1000
    assert more(whole=True) == 12 * 50_000 - 4 * 1000
    assert more(device="cuda") == 4 * 50_000 - 4 * 1000
    monkeypatch.setattr(formula, "WIDENED_ROWS", 7)
    monkeypatch.setitem(NARROW_CHUNK_ROWS, "cuda", 20)
    few, many = (more(device="cuda", computed=2, **one) for one in ({}, {"scores": 2}))
    assert many - few == (50 * (4 * 6 + 2) - (20 * 2 + 7 * 4)) * 1000


@pytest.mark.parametrize(
    "config",
    [GPT2Config(), MixtralConfig(), Qwen2Config(num_key_value_heads=0)],
    ids=["no gated MLP", "experts", "no key-value heads"],
)
def test_no_estimate_where_the_config_does_not_say_enough(config: Any) -> None:
    assert Shape.of(config) is None


def test_no_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="tokens is 0, expected at least 1"):
        activations(Shape(8, 8, 1, 1, 1, 8, 8), tokens=0, longest=0, layout="packed", stored=4, computed=4)


GB = 1e9
KEPT, PASSING = Held(2 * GB, 2 * GB, 4 * GB, 0), Activations(20 * GB, 4 * GB)


@pytest.mark.parametrize(
    ("wanted", "passing", "size", "on", "doubt", "says"),
    [
        (None, PASSING, 40, False, False, "off: about 28 GB fit into 0.9 of the memory without it"),
        (None, PASSING, 30, True, False, "on: about 12 GB fit into 0.9 of the memory, and without it would be 28 GB"),
        (
            None,
            PASSING,
            13,
            True,
            True,
            "on: about 12 GB do not fit into 0.9 of the memory, and without it would be 28 GB; lower",
        ),
        (True, PASSING, 40, True, False, "on: the recipe says so, and about 12 GB fit into 0.9 of the memory"),
        (
            False,
            PASSING,
            30,
            False,
            True,
            "off: the recipe says so, and about 28 GB do not fit into 0.9 of the memory; lower",
        ),
        (None, None, 1, False, False, "off: there is no estimate for this model"),
        (True, None, 1, True, False, "on: the recipe says so"),
    ],
)
def test_checkpointing_is_on_where_it_is_needed(
    wanted: bool | None, passing: Activations | None, size: float, on: bool, doubt: bool, says: str
) -> None:
    decided = checkpointing(wanted, KEPT, passing, Room(size * GB, "here"))
    assert (decided.on, decided.doubt, decided.asked) == (on, doubt, wanted is not None)
    assert str(decided).startswith(says)


def test_a_gpus_memory_is_shared_with_an_engine_in_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: SimpleNamespace(total_memory=80 * GB, name="a GPU"))
    assert str(room(cuda=True, processes=8, loaded=GB, engine=0.0)) == "80 GB: a GPU"
    assert str(room(cuda=True, processes=8, loaded=GB, engine=0.4)) == "48 GB: a GPU, less 0.4 for the rollout engine"


def test_a_machines_memory_is_divided_among_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10 * GB))
    assert room(cuda=False, processes=1, loaded=2 * GB, engine=0.0) == Room(12 * GB, "free in this machine")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    there = room(cuda=False, processes=1, loaded=2 * GB, engine=0.4)
    assert str(there) == "7 GB: free in this machine, of 2 processes"
