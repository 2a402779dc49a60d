"""How many kernels a layer would launch on a GPU, forward and backward, counted on a CPU: they do not hang on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2Config, Qwen2ForCausalLM

import flash
from posttrain.data.rows import Row
from posttrain.estimator.batch import Batch
from posttrain.model.layout.attention import take_layouts
from posttrain.model.layout.make import Packed, Padded, Rows
from posttrain.model.scoring import Scorer

LAYERS = 3
NO_KERNEL = {"detach", "alias", "_unsafe_view", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}


class Kernels(TorchDispatchMode):
    """Counts operations that are neither views nor empty memory."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view and func._schema.name.removeprefix("aten::") not in NO_KERNEL
        return func(*args, **(kwargs or {}))


def kernels_of_a_layer(layout: Rows, rows: list[Row]) -> float:
    """Of a micro-batch of these rows."""
    lengths = torch.tensor([len(row.completion) for row in rows])
    mask, counts = torch.arange(int(lengths.max())) < lengths[:, None], list[int]()
    for layers in (1, 1 + LAYERS):
        sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": layers}
        model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=1))
        take_layouts(model)
        inputs = layout.inputs(rows, Batch(loss_mask=mask))
        with flash.kernels(), torch.autocast("cpu", torch.bfloat16), Kernels() as kernels:
            Scorer().score(model, inputs, mask).logp.sum().backward()
        counts.append(kernels.count)
    return (counts[1] - counts[0]) / LAYERS


def rows_of(prompts: list[int]) -> list[Row]:
    """Answers of 3, 4, 5, … tokens to prompts of these lengths; equal lengths are one prompt."""
    draw = np.random.default_rng(0)
    asked = {length: draw.integers(1, 64, length).astype(np.int32) for length in prompts}
    answers = [draw.integers(1, 64, 3 + i).astype(np.int32) for i in range(len(prompts))]
    return [Row(asked[p], answer, np.ones(len(answer), np.bool_)) for p, answer in zip(prompts, answers, strict=True)]


def test_rows_of_any_lengths_take_hardly_more_than_padded_ones() -> None:
    groups = rows_of([length for length in (5, 6, 7, 8) for _ in range(8)])
    padded, blocks = kernels_of_a_layer(Padded(0), groups), kernels_of_a_layer(Packed(share=True), groups)
    shared = kernels_of_a_layer(Packed(share=True, varlen=True), groups)
    alone = kernels_of_a_layer(Packed(share=False, varlen=True), groups)
    assert alone <= 1.05 * padded and shared <= 1.3 * padded < 0.5 * blocks
    assert kernels_of_a_layer(Packed(share=True, varlen=True), groups[:12]) == shared  # whatever is in it
