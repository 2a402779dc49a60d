"""Whether an adapter, what else is trained and what a step is followed by go with a recipe's model and mode."""

from __future__ import annotations

from posttrain.recipe.training import TrainingConfig
from posttrain.settings.distributed import DistributedConfig
from posttrain.settings.model import ModelConfig


def check_moves(model: ModelConfig, training: TrainingConfig, distributed: DistributedConfig) -> None:
    """Refuses rules that are of something else.

    Raises:
        ValueError: the key, and what to do.
    """
    trainable, adapter = training.trainable, model.adapter
    if trainable is not None and adapter is not None:
        raise ValueError(
            "training.trainable: it chooses of the model's own parameters, and model.adapter is trained in their place: "
            "leave one of them out (model.adapter.target_modules chooses where an adapter is)"
        )
    for rule in training.update:
        if rule.of_adapters and (adapter is None or not adapter.is_lora):
            raise ValueError(f"training.update: {rule.name}: it is of a LoRA adapter's matrices: set model.adapter")
        if rule.of_whole_models and adapter is not None:
            raise ValueError(f"training.update: {rule.name}: it is of parameters that model.adapter leaves as they are")
    asks = "training.update" if training.update else "training.trainable"
    by_steps = training.update or (trainable is not None and trainable.in_turns)
    if by_steps and (distributed.shares_parameters or distributed.by_deepspeed):
        raise ValueError(
            f"{asks}: each process needs the whole of the model and of the optimizer's state, and mode "
            f"{distributed.mode} shares them out: take mode ddp"
        )
    if by_steps:
        _check_optimizer(training, asks)
    if adapter is not None and distributed.mode != "ddp" and not adapter.is_plain:
        raise ValueError(
            f"distributed.mode: {distributed.mode}: with it the adapter can be plain LoRA (lora, rslora) on linear "
            "layers alone; others take mode ddp"
        )
    if model.quantization is not None and distributed.mode != "ddp":
        raise ValueError(
            f"distributed.mode: {distributed.mode}: weights of few bits (model.quantization) are whole in each process: take "
            "mode ddp"
        )
    if model.reference.refresh and (distributed.shares_parameters or distributed.by_deepspeed):
        raise ValueError(
            f"model.reference.refresh: the reference follows a policy of which each process has the whole, and mode "
            f"{distributed.mode} has not: take mode ddp"
        )


def _check_optimizer(training: TrainingConfig, asks: str) -> None:
    """Whether rules can have of it what they take."""
    own, theirs, trainable = training.optimizer, str(training.extra.get("optim", "")), training.trainable
    written = f"{asks}: extra.optim: {theirs}" if own is None else f"{asks}: optimizer: {own.name}"
    if training.averages is not None:
        raise ValueError(
            f"{written} averages weights itself, and trains others than it shows: take another optimizer, or leave the rules "
            "out"
        )
    turns = trainable is not None and trainable.in_turns
    if theirs == "adagrad" and (turns or any(rule.forgets for rule in training.update)):
        raise ValueError(
            f"{written} cannot begin anew in the middle of a run, and would have to forget what it remembers: take another "
            "optimizer"
        )
    remembers = theirs != "sgd" or "momentum" in str(training.extra.get("optim_args", ""))
    of_moments = [rule.name for rule in training.update if rule.of_moments]
    if of_moments and not (remembers if own is None else own.remembers):
        raise ValueError(
            f"{written} without momentum keeps nothing that {of_moments[0]} could take from it: take another optimizer, or "
            "leave the rule out"
        )
