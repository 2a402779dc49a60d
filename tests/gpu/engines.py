"""Cases of `make gpu-check` over vLLM: in the process, asleep while there is training, and a server by each way of weights.

Each runs in a process of its own, for vLLM's allocator serves one engine in the life of a process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from gpu.cases import BF16, FLOAT32, Case
from gpu.gates import fallback_faults
from gpu.trained import trained
from posttrain import VLLMEngine

SHARE = 0.3
WAYS: dict[str, dict[str, Any]] = {
    "vLLM in the process": {},
    "vLLM that sleeps": {"sleep": True},
    "a vLLM server by disk": {"mode": "server"},
    "a vLLM server by ipc": {"mode": "server", "weights": "ipc"},
    "a vLLM server by nccl": {"mode": "server", "weights": "nccl", "devices": [1]},
}
APART = {FLOAT32: 1e-4, BF16: 1e-2}
"""Nats, mean k3 between sampler and trainer, at most."""


def engine_cases(gpus: int) -> Iterator[Case]:
    """Those that so many GPUs have room for; none without vLLM."""
    for tells, vllm in WAYS.items():
        if find_spec("vllm") is not None and max(vllm.get("devices", [0])) < gpus:
            for precision in APART:
                rollout = {"engine": "vllm", "vllm": {**vllm, "gpu_memory_utilization": SHARE, "probe_every": 1}}
                top = {"eval": {"every": 1, "samples": 2}}
                yield Case("grpo", precision, tells=tells, rollout=rollout, top=top, training={"max_steps": 4})


def engine_faults(case: Case, folder: Path) -> list[str]:
    """Of one case, run here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_faults, case, folder).result()


def _faults(case: Case, folder: Path) -> list[str]:
    freed, rest = list[int](), VLLMEngine.rest

    def noted(self: VLLMEngine) -> None:
        before = _free()
        rest(self)
        freed.append(_free() - before)

    VLLMEngine.rest = noted
    made = trained(case, folder)
    told = list(fallback_faults(case, made))
    wrong = sorted({name for step in made.steps for name, value in step.items() if not math.isfinite(value)})
    if wrong:
        told.append(f"not finite: {', '.join(wrong)}")
    gap = max(step["kl/sampler_trainer"] for step in made.steps)
    if not gap <= APART[case.precision]:
        told.append(f"the sampler is {gap:.1e} nats from the trainer, more than {APART[case.precision]:g}")
    if case.rollout["vllm"].get("sleep") and min(freed, default=0) < SHARE / 2 * torch.cuda.mem_get_info()[1]:
        told.append(f"it sleeps on its memory: of {SHARE:g} of the GPU it gives back {min(freed, default=0) / 1e9:.3g} GB")
    return told


def _free() -> int:
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
