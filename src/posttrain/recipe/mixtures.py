"""What several sources of data ask of the rest of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.settings.data import DataConfig, Generated, Mixture, TaskSource


def check_mixture(data: DataConfig, rewards: Sequence[str], *, epochs: float | None) -> None:
    """Refuses what has no meaning, or several, where there are several sources.

    Args:
        data: of a recipe.
        rewards: of it, by name.
        epochs: of its training.

    Raises:
        ValueError: the key, and what to do.
    """
    if data.is_mixed and epochs is not None:
        key = "data.train.mix" if isinstance(data.train, Mixture) else "data.replay"
        raise ValueError(f"training.epochs: with {key} each source has passes of its own: set training.max_steps")
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
