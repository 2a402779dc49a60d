"""From what a trainer is given, data sets, rewards and an engine, to the collector of its algorithm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from posttrain.collection import Collector
from posttrain.data.chat import Encoder
from posttrain.data.collate import DemonstrationCollector
from posttrain.data.config import DataConfig, PathSource
from posttrain.data.prepare import examples, problems
from posttrain.data.rows import Example, Problem
from posttrain.data.sources import Record
from posttrain.errors import RecipeError, SetupError
from posttrain.estimator import Algorithm
from posttrain.models import eos_ids
from posttrain.rewards.base import Reward, Weighted
from posttrain.rollout.collect import RolloutCollector
from posttrain.rollout.engine import RolloutEngine, Sampling


def as_examples(data: Any, model: Any, tokenizer: Any, *, preference: bool) -> list[Example]:
    """Prepared examples as they are; a data set with TRL's columns, rendered with the tokenizer's chat template.

    Raises:
        DataError: a column is missing, or a row is bad.
    """
    if len(data) and isinstance(data[0], Example):
        return list(data)
    return examples(_records(data), _encoder(model, tokenizer), preference=preference)[0]


def as_problems(
    data: Any, model: Any, tokenizer: Any, *, rewards: Iterable[Reward | Weighted], max_tokens: int
) -> list[Problem]:
    """The same for questions to be answered, with the columns that the rewards read.

    Raises:
        DataError: a column is missing, or a row is bad.
    """
    if len(data) and isinstance(data[0], Problem):
        return list(data)
    judges = [entry.reward if isinstance(entry, Weighted) else entry for entry in rewards]
    needs = dict.fromkeys(name for judge in judges for name in getattr(judge, "columns", ()))
    return problems(_records(data), _encoder(model, tokenizer, max_tokens - 1), needs=needs)[0]


def demonstration_collector(data: Sequence[Example], algorithm: Algorithm, *, rows: int, seed: int) -> Collector:
    """Of `rows` examples a step.

    Raises:
        SetupError: the algorithm needs more than demonstrations or pairs.
    """
    if algorithm.needs.demonstration not in ("none", "row"):
        raise SetupError(f"{algorithm.name} needs {algorithm.needs.demonstration}, which this version cannot collect.")
    return DemonstrationCollector(data, rows=rows, updates=algorithm.needs.updates, seed=seed)


def rollout_collector(
    data: Sequence[Problem],
    algorithm: Algorithm,
    *,
    rows: int,
    ranks: int,
    rewards: Sequence[Reward | Weighted],
    engine: RolloutEngine | None,
    sampling: Sampling | None,
    tokenizer: Any,
    **options: Any,
) -> Collector:
    """Of `rows` rollouts a step; a reward by itself has weight 1. Refuses what would train something else than was asked.

    Raises:
        RecipeError, SetupError: says what, and what to do.
    """
    needs = algorithm.needs
    if engine is None or sampling is None or not rewards:
        raise SetupError(f"{algorithm.name} trains on rollouts: pass rewards=, engine= and sampling=.")
    if needs.demonstration != "none":
        raise SetupError(f"{algorithm.name} trains on rollouts with demonstrations, which this version cannot collect.")
    if ranks > 1:
        raise SetupError(f"{algorithm.name} trains on rollouts: in one process in this version.")
    if rows % needs.rollouts:
        raise RecipeError(
            f"{rows} rollouts in a step are no whole number of groups of {needs.rollouts}: "
            "per_device_train_batch_size × gradient_accumulation_steps must be a multiple."
        )
    check_sampling(algorithm, sampling)
    weighted = [reward if isinstance(reward, Weighted) else Weighted(reward) for reward in rewards]
    questions = rows // needs.rollouts
    return RolloutCollector(data, algorithm, engine, weighted, sampling, tokenizer, questions=questions, **options)


def check_sampling(algorithm: Algorithm, sampling: Sampling) -> None:
    """Refuses distributions that the algorithm cannot learn from, or would learn something else from.

    Raises:
        RecipeError: says which, and what to do.
    """
    if not sampling.temperature:
        raise RecipeError("sampling: at temperature 0 all completions of a group are equal, and nothing can be learnt.")
    if algorithm.importance_ratio and (sampling.top_p < 1 or sampling.top_k):
        raise RecipeError(
            "sampling: with top_p or top_k tokens come from a cut-off distribution, and what the algorithm compares (several "
            "updates, a correction, old: sampler or a KL in the reward) is of the whole one: it would be wrong without a "
            "sign. Leave them at 1 and 0, or do without the comparison."
        )


def _records(data: Any) -> Iterator[Record]:
    return (Record(f"row {number}", dict(columns)) for number, columns in enumerate(data, 1))


def _encoder(model: Any, tokenizer: Any, kept_free: int = 0) -> Encoder:
    limit = getattr(model.config, "max_position_embeddings", None)
    config = DataConfig(train=PathSource(path=""), chat_template=bool(tokenizer.chat_template))
    return Encoder(tokenizer, config, eos_ids(model, tokenizer), None if limit is None else limit - kept_free)
