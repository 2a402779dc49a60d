"""The sizes of a run on a GPU, and those of its rehearsal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from head import HeadShape
from models import Spec
from targets import GPU_HEADS


@dataclass(frozen=True)
class Scale:
    """The sizes of a run. small, large: models; heads: output layers; square, copied: of the ceilings, rows and bytes.

    packed: documents of `longest` tokens in the step that is held to the device's peak.
    without: no contender that has one of these words in its name.
    """

    small: Spec
    large: Spec
    heads: tuple[HeadShape, ...]
    square: int
    copied: int
    mean: float
    longest: int
    documents: int
    packed: int
    prompt: int
    answer: tuple[int, int]
    questions: int
    group: int
    prompts: tuple[int, ...]
    groups: tuple[int, ...]
    vocabularies: tuple[int, ...]
    naive_logits: int = 4 * 10**9
    """Logits that the naive loss may hold; it holds several copies of them."""
    without: tuple[str, ...] = ()


def full() -> Scale:
    """For a GPU of 80 GB or more: Qwen2.5-0.5B and 1.5B."""
    place: dict[str, Any] = {"device": "cuda", "dtype": "bfloat16"}
    return Scale(
        small=Spec(151936, 896, 4864, 24, 14, 2, 32768, **place),
        large=Spec(151936, 1536, 8960, 28, 12, 2, 32768, **place),
        heads=tuple(HeadShape(n, h, v, 1.0, **place) for n, h, v in GPU_HEADS),
        square=8192,
        copied=4 * 2**30,
        mean=5.97,
        longest=2048,
        documents=24,
        packed=8,
        prompt=512,
        answer=(128, 512),
        questions=8,
        group=8,
        prompts=(128, 512, 2048, 4096),
        groups=(2, 8, 32),
        vocabularies=(32768, 131072, 262144),
    )


def tiny() -> Scale:
    """For a rehearsal: on a device that there is, or is pretended; else on the CPU, in float32."""
    place: dict[str, Any] = {"device": "cuda", "dtype": "bfloat16"} if torch.cuda.is_available() else {}
    spec = Spec(256, 64, 48, 2, 2, 1, 2048, **place)
    return Scale(
        small=spec,
        large=spec,
        heads=(HeadShape(32, 16, 128, **place), HeadShape(64, 16, 256, **place)),
        square=64,
        copied=2**16,
        mean=3.5,
        longest=64,
        documents=3,
        packed=2,
        prompt=16,
        answer=(4, 8),
        questions=2,
        group=2,
        prompts=(8, 16),
        groups=(2, 4),
        vocabularies=(128, 256),
    )
