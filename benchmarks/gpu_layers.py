"""What a step asks of the host: operations that it dispatches for a layer, and how often it waits for the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import our_steps
import torch
from gpu_scale import Scale
from models import Spec
from results import Result
from rows import documents, groups
from timing import Contender

MORE = 2
"""Layers by which two models differ."""


def layers(scale: Scale) -> list[Result]:
    """Operations of a layer, forward and backward: what two models differ by. Lengths are all different."""
    spec, answer = scale.small, scale.answer
    rows = documents(scale.documents, spec.vocabulary, mean=scale.mean, longest=scale.longest)
    asked = groups(scale.questions, scale.group, scale.prompt, spec.vocabulary, answer=answer)
    makes: dict[str, Callable[[Spec], Contender]] = {
        "sft": lambda spec: our_steps.sft(spec, rows),
        "grpo": lambda spec: our_steps.grpo(spec, asked),
    }
    made: list[Result] = []
    for name, make in makes.items():
        few, many = (_operations(make, replace(spec, layers=count)) for count in (1, 1 + MORE))
        figures = {"operations a layer": (many - few) / MORE}
        made.append(Result(f"layer-{name}", "ours", spec.described(), figures=figures))
    return made


def _operations(make: Callable[[Spec], Contender], spec: Spec) -> int:
    counted = make(spec).outcome().operations
    assert counted is not None
    return counted


def waits(scale: Scale) -> list[Result]:
    """How often the host waits for the device in a step of SFT: what trainings of one step and of three differ by, as torch
    warns of it.
    """
    if scale.small.device == "cpu":
        return [Result("waits", "ours", note="not measured: there is no device to wait for")]
    few, many = (_warned(scale, steps) for steps in (1, 3))
    return [Result("waits", "ours", scale.small.described(), figures={"waits a step": (many - few) / 2})]


def _warned(scale: Scale, steps: int) -> int:
    from training import Plan, ours_sft

    run = ours_sft(Plan(scale.small, steps=steps, rows=scale.documents))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run.train()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(one.message) for one in told)
