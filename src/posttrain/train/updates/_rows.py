"""Gradients of single rows, by which a rule learns at the start what matters to data that are to be kept."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.data.rows import Example
from posttrain.errors import SetupError
from posttrain.model.layout.make import Rows
from posttrain.model.scoring import Scorer, drawn
from posttrain.train.collect.demonstrations import collect_demonstrations
from posttrain.train.options import Execution
from posttrain.train.updates._update import LearningConfig, Named, RowGradients


class Gradients:
    """See `RowGradients`.

    Args:
        model: as it is at the start, not spread over ranks.
        examples: of all ranks, of one row each.
        scorer: how tokens are scored. layout: how a row is laid out for the model.
        accelerator: of accelerate: device, ranks and autocast.
        seed: of tokens that are drawn.
    """

    def __init__(
        self, model: nn.Module, examples: Sequence[Example], *, scorer: Scorer, layout: Rows, accelerator: Any, seed: int
    ) -> None:
        self.model, self._examples, self._seed = model, examples, seed
        self._scorer, self._layout, self._accelerator = scorer, layout, accelerator

    def of(self, named: Named, *, own: bool = False) -> Iterator[dict[str, Tensor]]:
        """See `RowGradients`."""
        begin, step = self._accelerator.process_index, self._accelerator.num_processes
        training = self.model.training
        self.model.eval()
        try:
            for number in range(begin, len(self._examples), step):
                with torch.enable_grad(), self._accelerator.autocast():
                    loss = -self._score(number, own=own)
                found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
                yield {name: one.detach() for name, one in zip(named, found, strict=True) if one is not None}
        finally:
            self.model.train(training)

    def mean(self, total: Tensor) -> Tensor:
        """See `RowGradients`."""
        return self._accelerator.reduce(total, "sum") / len(self._examples)

    def _score(self, number: int, *, own: bool) -> Tensor:
        collection = collect_demonstrations([self._examples[number]], progress=0.0)
        batch, device = collection.flat.batch(), self._accelerator.device
        inputs, batch = self._layout.inputs(collection.rows, batch).to(device), batch.to(device)
        if own:
            generator = torch.Generator(device).manual_seed(self._seed * 1_000_003 + number)
            inputs = drawn(self.model, inputs, generator)
        return self._scorer.score(self.model, inputs, batch.loss_mask).logp.sum()


def row_gradients(
    execution: Execution, given: Mapping[str, Sequence[Example]], model: nn.Module, *, seed: int, **how: Any
) -> dict[str, RowGradients]:
    """For each rule that learns from rows so many of those that it is given, drawn by the seed. `how`: see `Gradients`.

    Raises:
        SetupError: a rule is given none.
    """
    found = dict[str, RowGradients]()
    for rule in execution.update:
        if not isinstance(rule, LearningConfig):
            continue
        if not (examples := given.get(rule.name, ())):
            raise SetupError(
                f"training.update: {rule.name}: it is given no rows to learn from: set `of`, or from "
                f"Python Execution(update_rows={{{rule.name!r}: rows}})."
            )
        chosen = sorted(random.Random(seed).sample(range(len(examples)), min(rule.rows, len(examples))))
        found[rule.name] = Gradients(model, [examples[i] for i in chosen], seed=seed, **how)
    return found
