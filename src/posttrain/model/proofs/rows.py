"""The rows on which the log-probs of models are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.data.rows import Row
from posttrain.estimator.batch import Batch
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.layout.padded import model_inputs
from posttrain.model.scoring import Scorer, computing, output_head, without_autocast

FIRST, LENGTH = 2, 48  # of the data's rows, and tokens of each
SPREAD = 24  # tokens of a row from anywhere in the vocabulary
EXACT, ON_A_DEVICE, LOOSE = 1e-3, 0.02, 0.25
"""Nats: the largest difference of a log-prob between two orders of sums in float32 or more (models agree to 2e-5); and where
numbers are coarser, the mean difference: on a GPU, whose products may have 10 bits, and in bfloat16, whose 8 bits leave
hundredths, and more of what is unlikely."""


@dataclass(frozen=True, slots=True)
class ProbeRows:
    """Token ids; from the second token of a row on each is scored."""

    rows: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, first: Sequence[Sequence[int]], vocabulary: int) -> ProbeRows:
        """The first rows of the data, cut, and one from all of the vocabulary."""
        draw = Random(0)
        spread = tuple(draw.randrange(vocabulary) for _ in range(SPREAD))
        shown = (tuple(int(token) for token in row[:LENGTH]) for row in first[:FIRST])
        return cls((*(row for row in shown if len(row) > 1), spread))

    def inputs(self) -> tuple[ModelInputs, Tensor]:
        """For a model, with the mask of the tokens that are scored, [B, T]."""
        lengths = torch.tensor([len(row) - 1 for row in self.rows])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = [np.array(row, np.int32) for row in self.rows]
        rows = [Row(row[:1], row[1:], np.ones(len(row) - 1, np.bool_)) for row in ids]
        return model_inputs(rows, Batch(loss_mask=mask), pad_id=0), mask

    @torch.no_grad()
    def logp(self, model: Any, *, training: bool = False, bf16: bool = False) -> Float[Tensor, " n"]:
        """Log-probs of the scored tokens, from the model's own logits, in eval mode or as in training, on the CPU.

        Products are in the dtype that the model is held in, or in bfloat16.
        """
        inputs, mask = self.inputs()
        device, before = output_head(model).weight.device, model.training
        model.train(training)
        try:
            with without_autocast(model), computing(model, bf16=bf16):
                return Scorer("whole").score(model, inputs.to(device), mask.to(device)).logp.cpu()[mask]
        finally:
            model.train(before)


def largest(one: Tensor, other: Tensor) -> float:
    """The largest difference; what is a number on one side only is infinitely far."""
    return float(_differences(one, other).max())


def agree(one: Tensor, other: Tensor, *models: Any) -> bool:
    """Whether log-probs are those of one model, by the dtypes and the devices of the models that made them."""
    weights = [output_head(model).weight for model in models]
    coarse = ON_A_DEVICE if any(weight.device.type != "cpu" for weight in weights) else 0.0
    coarse = LOOSE if any(weight.element_size() < 4 for weight in weights) else coarse
    return largest(one, other) <= EXACT or float(_differences(one, other).mean()) <= coarse


def _differences(one: Tensor, other: Tensor) -> Tensor:
    one, other = one.double(), other.double()
    same = (one == other) | (one.isnan() & other.isnan())
    return (one - other).abs().nan_to_num(nan=float("inf")).masked_fill(same, 0.0)
