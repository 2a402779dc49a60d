"""What a GPU must show: what is missed or not measured fails; and the work that a step is held to is what torch counts."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2ForCausalLM

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("results", "targets", "rows", "models", "work")


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(BENCHMARKS))
    yield {name: importlib.import_module(name) for name in MODULES}
    sys.path.remove(str(BENCHMARKS))
    for name in MODULES:
        sys.modules.pop(name, None)


def all_met(bench: dict[str, ModuleType]) -> dict[tuple[str, str], Any]:
    """A row for each target, at its bound."""
    made: dict[tuple[str, str], Any] = {}
    for target in bench["targets"].GPU_TARGETS:
        known: dict[str, Any] = {"figures": {target.figure: target.bound}}
        if target.kind == "ratio":
            known = {"ratio": 0.0, "ratio_wall": target.bound}  # processor's time says nothing of a device
        made[target.case, target.against] = bench["results"].Result(target.case, target.against, **known)
    return made


def test_what_is_at_its_bound_is_met(bench: dict[str, ModuleType]) -> None:
    targets = bench["targets"]
    lines, failed = targets.judged(all_met(bench).values(), targets.GPU_TARGETS, held=True)
    assert not failed and len(lines) == len(targets.GPU_TARGETS) and all(line.startswith("met ") for line in lines)


def test_every_target_fails_alone_where_it_is_missed_or_was_not_measured(bench: dict[str, ModuleType]) -> None:
    targets, result = bench["targets"], bench["results"].Result
    for number, target in enumerate(targets.GPU_TARGETS):
        worse = target.bound * (0.9 if target.is_least else 1.1)
        key = target.case, target.against
        of_kind = {"ratio": {"ratio": 9.0, "ratio_wall": worse}}.get(target.kind, {"figures": {target.figure: worse}})
        missed = all_met(bench) | {key: result(*key, **of_kind)}
        absent = {name: row for name, row in all_met(bench).items() if name != key}
        for rows in (missed, absent):
            lines, failed = targets.judged(rows.values(), targets.GPU_TARGETS, held=True)
            assert failed and [i for i, line in enumerate(lines) if line.startswith("MISSED")] == [number]
            rehearsed, failed = targets.judged(rows.values(), targets.GPU_TARGETS, held=False)
            assert not failed and all(line.startswith("not held") for line in rehearsed)


def test_the_work_of_a_step_is_what_torch_counts(bench: dict[str, ModuleType]) -> None:
    spec, document = bench["models"].Spec(64, 32, 48, 2, 4, 2, 64), bench["rows"].Document(list(range(2, 9)), [5] * 11)
    config = Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    config._attn_implementation = "eager"  # whose products torch counts; it multiplies what is masked too
    model, ids = Qwen2ForCausalLM(config), torch.tensor([document.prompt + document.completion])
    with FlopCounterMode(display=False) as counted:
        model(input_ids=ids, logits_to_keep=len(document.completion)).logits.sum().backward()
    masked = 6 * spec.layers * spec.hidden * ids.numel() ** 2
    assert counted.get_total_flops() == pytest.approx(bench["work"].of_documents(spec, [document]) + masked, rel=2e-3)
    group = bench["rows"].Group(document.prompt, [document.completion, document.completion], [0.0, 1.0])
    once, twice = bench["work"].of_groups(spec, [group]), bench["work"].of_documents(spec, [document, document])
    alone = bench["work"].of_documents(spec, [bench["rows"].Document(document.prompt, [])])
    assert once == pytest.approx(twice - alone)  # a prompt counts once for its answers
