"""The rules of a run together, applied to its model, and what is trained of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from posttrain.errors import CheckpointError, SetupError
from posttrain.train.options import Execution
from posttrain.train.updates._chosen import chosen_of
from posttrain.train.updates._update import Named, RowGradients, UpdateConfig, forget
from posttrain.train.updates.trainable import TrainableConfig


class Applied(TrainerCallback):
    """Rules as they run, in their order; nothing happens without any.

    Args:
        updates: the rules.
        trainable: what is trained in which step; nothing of it here where it is the same in all.
        seed: of the run.
        alone: there is one process; several meet over all parameters, so that gradients are made and thrown away.
        rows: that rules learn from at the start, by the rules' names.
    """

    def __init__(
        self,
        updates: Sequence[UpdateConfig] = (),
        trainable: TrainableConfig | None = None,
        *,
        seed: int = 0,
        alone: bool = True,
        rows: Mapping[str, RowGradients] | None = None,
    ) -> None:
        self._configs, self._seed, self._alone, self._rows = updates, seed, alone, rows or {}
        self._rules = [(f"{number}.{config.name}", config.build(seed)) for number, config in enumerate(updates)]
        self._trainable = trainable if trainable is not None and trainable.in_turns else None
        self._names = list[str]()

    @property
    def any(self) -> bool:
        """Whether something happens."""
        return bool(self._rules) or self._trainable is not None

    def start(self, model: nn.Module) -> None:
        """Before the first step, with the weights of the start, also where the run goes on.

        Raises:
            SetupError: a rule is not of such a model.
        """
        self._names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        for config in self._configs:
            if config.of_adapters and not any(".lora_B." in name for name in self._names):
                raise SetupError(f"training.update: {config.name}: it is of a LoRA adapter's matrices: set model.adapter.")
        for _, rule in self._rules:
            rule.start(self._named(model))

    def learn(self, model: nn.Module) -> None:
        """Before the first step of a run that does not go on: what rules learn from rows, by the weights of the start.

        Raises:
            SetupError: a rule is not of such a model.
        """
        for config, (_, rule) in zip(self._configs, self._rules, strict=True):
            if config.name in self._rows:
                rule.learn(self._named(model), self._rows[config.name])

    def before(self, model: nn.Module, optimizer: Any, step: int) -> None:
        """Before a step's first pass: what it trains takes gradients."""
        if self._trainable is None:
            return
        chosen, named = self._chosen(model, step), self._named(model)
        if self._alone:
            for name, parameter in named.items():
                parameter.requires_grad_(name in chosen)
        if step > 1:
            for name in self._chosen(model, step - 1) - chosen:
                forget(optimizer, named[name])

    @torch.no_grad()
    def on_gradients(self, model: nn.Module, step: int) -> None:
        """See `Update`."""
        named = self._named(model)
        if self._trainable is not None and not self._alone:
            chosen = self._chosen(model, step)
            for name, parameter in named.items():
                if name not in chosen:
                    parameter.grad = None
        for _, rule in self._rules:
            rule.on_gradients(named, step)

    @torch.no_grad()
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **of: Any) -> None:
        """See `Update.on_weights`; nothing after a step that was left out."""
        for _, rule in self._rules if not of["optimizer"].step_was_skipped else ():
            rule.on_weights(self._named(of["model"]), of["optimizer"], state.global_step + 1)

    @contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """The model is what is evaluated while it is entered."""
        named = self._named(model)
        own = {name: named[name].detach().clone() for name in self._shown()}
        self._put(model, self._shown())
        try:
            yield
        finally:
            self._put(model, own)

    def end(self, model: nn.Module) -> None:
        """Training is over: the model is what is left of it."""
        self._put(model, self._shown())

    def release(self, model: nn.Module) -> None:
        """All that can be trained takes gradients again."""
        for parameter in self._named(model).values() if self._trainable is not None else ():
            parameter.requires_grad_()

    def state(self) -> dict[str, Tensor]:
        """What the rules remember, for a checkpoint."""
        return {f"{label}/{name}": value for label, rule in self._rules for name, value in rule.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` gave.

        Raises:
            CheckpointError: it is of other rules.
        """
        if state.keys() != self.state().keys():
            raise CheckpointError("The checkpoint is of a run with other update rules: go on as it was, or begin another.")
        for label, rule in self._rules:
            own = {name.removeprefix(f"{label}/"): value for name, value in state.items() if name.startswith(f"{label}/")}
            rule.restore(own)

    def _chosen(self, model: nn.Module, step: int) -> set[str]:
        assert self._trainable is not None
        return chosen_of(model, self._trainable, self._seed, step)

    def _named(self, model: nn.Module) -> Named:
        found = dict(model.named_parameters())
        return {name: found[name] for name in self._names}

    def _shown(self) -> Mapping[str, Tensor]:
        return {name: value for _, rule in self._rules for name, value in rule.shown().items()}

    @torch.no_grad()
    def _put(self, model: nn.Module, values: Mapping[str, Tensor]) -> None:
        named = self._named(model)
        for name, value in values.items():
            named[name].detach().copy_(value)


def applied(execution: Execution, model: nn.Module, *, seed: int, world: int, rows: Mapping[str, RowGradients]) -> Applied:
    """The rules of a run over so many processes, started, with the rows that they are to learn from.

    Raises:
        SetupError: they need the whole model in each process, or another kind of it.
    """
    made = Applied(execution.update, execution.trainable, seed=seed, alone=world == 1, rows=rows)
    mode = execution.distributed
    if made.any and mode is not None and (mode.by_deepspeed or (mode.shares_parameters and world > 1)):
        raise SetupError(
            "training.update, and training.trainable by turns, need the whole model in each process, and mode "
            f"{mode.mode} has not: take mode ddp."
        )
    if made.any:
        made.start(model)
    return made
