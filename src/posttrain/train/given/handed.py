"""A model, an algorithm, data sets and rewards as a user hands them over → as the trainer takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from posttrain.algorithms import KIND, build_algorithm
from posttrain.data.rows import Example, Problem
from posttrain.data.rows.stream import Stream
from posttrain.errors import SetupError
from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.trial import try_out
from posttrain.model.adapters.rounded import quantization_of
from posttrain.model.load import load
from posttrain.rewards.base import Weighted
from posttrain.rewards.kinds._called import as_reward
from posttrain.rollout.engine import RolloutEngine, Sampling
from posttrain.rollout.hf import HFEngine
from posttrain.settings.model import ModelConfig
from posttrain.train.given.keywords import ADAPTER, PARENTS, one_of
from posttrain.train.given.masters import with_masters
from posttrain.train.options import Execution

ONLY_SET = "held_out"
"""What a single evaluation set is called in metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What a trainer is made of. `bf16`: the model was of 16 bits, and products stay so. `metrics` are the names of an
    evaluation's, `parents` what transformers' Trainer gets.
    """

    model: Any
    bf16: bool
    tokenizer: Any
    algorithm: Algorithm
    train: Any
    held_out: dict[str, Any]
    rewards: list[Weighted]
    engine: RolloutEngine | None
    metrics: tuple[str, ...]
    parents: dict[str, Any]


def handed_over(
    model: Any,
    algorithm: Any,
    train: Any,
    held_out: Any,
    *,
    tokenizer: Any,
    rewards: Any,
    engine: RolloutEngine | None,
    sampling: Sampling | None,
    execution: Execution,
    seed: int,
    deepspeed: bool,
    theirs: Mapping[str, Any],
) -> Handed:
    """All of it, in order. `deepspeed` has float32 masters of its own.

    Raises:
        RecipeError, SetupError: it cannot be taken; says what can.
        ValueError: the algorithm fails on a small batch.
    """
    algorithm = as_algorithm(algorithm, sampling)
    names, sets = try_out(algorithm), evaluation_sets(held_out, algorithm)
    rows, judges = rows_of(train, "train_dataset"), as_weighted(one_of("rewards", rewards, theirs))
    model, tokenizer = model_and_tokenizer(model, one_of("tokenizer", tokenizer, theirs), theirs.get(ADAPTER), seed=seed)
    check_optimizers(model, execution, theirs)
    return Handed(
        model=model,
        bf16=not deepspeed and with_masters(model),
        tokenizer=tokenizer,
        algorithm=algorithm,
        train=rows,
        held_out=sets,
        rewards=judges,
        engine=HFEngine(model, tokenizer) if engine is None and algorithm.needs.rollouts else engine,
        metrics=tuple(f"eval/{one}/{name}" for one in sets for name in names),
        parents={name: theirs[name] for name in PARENTS if name in theirs},
    )


def model_and_tokenizer(model: Any, tokenizer: Any, adapter: Any, *, seed: int) -> tuple[Any, Any]:
    """A model by name or folder is loaded in float32, and brings its tokenizer; an adapter's config puts one on it.

    Raises:
        SetupError: it cannot be loaded, there is no tokenizer, or there are two adapters.
    """
    if isinstance(model, str) or hasattr(model, "__fspath__"):
        model, own = load(ModelConfig(name=str(model)), seed=seed)
        tokenizer = tokenizer or own
    if not isinstance(model, torch.nn.Module):
        raise SetupError(f"model must be a causal language model, its name or its folder, not {type(model).__name__}.")
    if tokenizer is None:
        raise SetupError("A tokenizer is needed beside a model: pass tokenizer= (processing_class=).")
    if isinstance(tokenizer, str) or not hasattr(tokenizer, "pad_token_id"):
        raise SetupError(f"tokenizer must be a transformers tokenizer, not {type(tokenizer).__name__}.")
    if adapter is not None:
        from peft import PeftModel, get_peft_model

        if isinstance(model, PeftModel):
            raise SetupError("peft_config: the model has an adapter already: pass one of them.")
        model = get_peft_model(model, adapter)
    if quantization_of(model) is None and not all(p.is_floating_point() for p in model.parameters()):
        raise SetupError(
            "model: it holds quantised weights, which engines and folders could not be given whole. Load it as a recipe "
            "does, by model.quantization: posttrain.model.load.load(ModelConfig(name=…, adapter=…, quantization=…), seed=0)."
        )
    return model, tokenizer


def as_algorithm(given: Any, sampling: Sampling | None) -> Algorithm:
    """A value as it is; one by name, or by a mapping with `name` and its options, as in a recipe.

    Raises:
        RecipeError: an unknown name or option.
        SetupError: it is neither.
    """
    if isinstance(given, Algorithm):
        return given
    options = {"name": given} if isinstance(given, str) else given
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        raise SetupError(
            f"algorithm must be a name ('sft'), a mapping with name and options, or build_algorithm(…), not "
            f"{type(given).__name__}."
        )
    config = KIND.members.get(options["name"])
    if sampling is not None and config is not None and "max_tokens" in config.model_fields:
        options = {"max_tokens": sampling.max_tokens, **options}
    return build_algorithm(**options)


def as_weighted(given: Any) -> list[Weighted]:
    """One reward, or several; one by itself has weight 1.

    Raises:
        SetupError: one is no reward.
    """
    several: Iterable[Any] = given if isinstance(given, (list, tuple)) else [given]
    weighted = [one if isinstance(one, Weighted) else Weighted(one) for one in several]
    return [replace(one, reward=as_reward(one.reward)) for one in weighted]


def rows_of(data: Any, what: str) -> Any:
    """A data set whose rows can be counted and read by number, or a `Stream` of examples.

    Raises:
        SetupError: says what is the matter with it.
    """
    if isinstance(data, Stream):
        return data
    if isinstance(data, str) or hasattr(data, "__fspath__"):
        raise SetupError(f"{what}: {str(data)!r} is a name: pass the rows, by datasets.load_dataset for instance.")
    if isinstance(data, Mapping):
        raise SetupError(f"{what} has the splits {', '.join(map(str, data))}: pass one of them.")
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise SetupError(
            f"{what}: {type(data).__name__} has no length, and the order of rows is a function of seed and step. "
            "Take as many as you want to train on: Dataset.from_list(list(data.take(100_000)))."
        )
    if not len(data):
        raise SetupError(f"{what} has no rows.")
    first = data[0]
    if not isinstance(first, (Mapping, Example, Problem)):
        raise SetupError(f"{what}: a row must be a mapping of columns, not {type(first).__name__}.")
    if isinstance(first, Mapping) and "input_ids" in first:
        raise SetupError(f"{what} is tokenized: pass its text, as prompt + completion, messages or chosen + rejected.")
    return data


def evaluation_sets(data: Any, algorithm: Algorithm) -> dict[str, Any]:
    """Data sets by name; a single one is `held_out`.

    Raises:
        SetupError: as `rows_of`; or they are questions, of which there is no validation loss.
    """
    if data is None or (isinstance(data, Sequence) and not len(data)):
        return {}
    sets = dict(data) if isinstance(data, Mapping) else {ONLY_SET: data}
    for name, rows in sets.items():
        first = rows_of(rows, f"eval_dataset {name}")[0]
        asked = isinstance(first, Problem) or (isinstance(first, Mapping) and not {"completion", "messages"} & {*first})
        if algorithm.needs.rollouts and asked:
            raise SetupError(
                f"eval_dataset {name} has questions: its loss needs answers (completion, or messages). Sampled answers are "
                "evaluated by watching=Watching(sample_evaluation=…), or by posttrain eval."
            )
    return sets


def check_optimizers(model: Any, execution: Execution, theirs: Mapping[str, Any]) -> None:
    """Refuses an optimizer that would move other parameters than the model's, and two of them or of schedules.

    Raises:
        SetupError: says what to do.
    """
    optimizer, schedule = theirs.get("optimizers") or (None, None)
    if schedule is not None and execution.schedule is not None:
        raise SetupError("optimizers has a schedule, and so has execution: pass one of them.")
    if optimizer is None:
        return
    if execution.optimizer is not None or execution.parameters:
        raise SetupError("optimizers has an optimizer, and execution says how one is made: pass one of them.")
    if execution.distributed is not None and execution.distributed.mode != "ddp":
        raise SetupError(
            f"optimizers: {execution.distributed.mode} makes new parameters: pass optimizer_cls_and_kwargs= instead."
        )
    own = {id(parameter) for parameter in model.parameters()}
    if not own >= {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}:
        raise SetupError("optimizers: it holds parameters that are not the model's: make it of model.parameters().")
