"""What several sources of data, and an order of their rows, ask of the rest of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.recipe.training import TrainingConfig
from posttrain.settings.data import DataConfig, Generated, Mixture, TaskSource
from posttrain.settings.data.order import GrowingOrder


def check_mixture(data: DataConfig, rewards: Sequence[str], training: TrainingConfig) -> None:
    """Refuses what has no meaning, or several, where there are several sources, one that streams, an order of rows, or steps
    of tokens.

    Args:
        data: of a recipe.
        rewards: of it, by name.
        training: of it.

    Raises:
        ValueError: the key, and what to do.
    """
    if data.is_mixed and training.epochs is not None:
        key = "data.train.mix" if isinstance(data.train, Mixture) else "data.replay"
        raise ValueError(f"training.epochs: with {key} each source has passes of its own: set training.max_steps")
    if data.streamed is not None and training.epochs is not None:
        raise ValueError("training.epochs: data.train streams, and how long it is nobody knows: set training.max_steps")
    if data.streamed is not None and training.tokens_per_step is not None:
        raise ValueError("training.tokens_per_step: it is of all rows of train, which streams: set rows_per_step")
    if "task" in rewards and not isinstance(data.judged, Generated):
        several = isinstance(data.train, Mixture)
        what = "the sources of data.train.mix are not all the same" if several else "data.train is neither"
        raise ValueError(f"rewards: task is the verifier of a generated task or a gym, and {what}")
    tasks = [name for name, source in data.sources.items() if isinstance(source, TaskSource)]
    if data.collect is not None and not rewards and tasks and not isinstance(data.judged, Generated):
        raise ValueError(
            f"data.collect: data.train.mix.{tasks[0]} has a verifier of its own, and other sources have not: say under "
            "rewards what judges the answers to all of them"
        )
    _check_order(data, training)


def _check_order(data: DataConfig, training: TrainingConfig) -> None:
    if data.order is not None and data.order.passes_differ and training.epochs is not None:
        raise ValueError(
            f"training.epochs: passes by data.order: {data.order.rule} are over parts of the rows: set training.max_steps"
        )
    if isinstance(data.order, GrowingOrder) and (training.epochs is None or training.tokens_per_step is None):
        raise ValueError(
            "data.order: growing gives each length an equal share of the tokens of all texts: set training.epochs, in place "
            "of max_steps, and training.tokens_per_step"
        )
    if training.tokens_per_step is None or not isinstance(data.train, Mixture):
        return
    if len(data.train.phases) > 1 or data.train.exhausted == "stop":
        key = "phases" if len(data.train.phases) > 1 else "exhausted: stop"
        raise ValueError(
            f"training.tokens_per_step: data.train.{key} asks how many rows the run reads, which is known of steps of rows "
            "alone: set training.rows_per_step"
        )
