"""Keywords of transformers' and TRL's trainers that `PostTrainer` has under another name, or does without."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from posttrain.errors import SetupError

ALIASES = {"processing_class": "tokenizer", "reward_funcs": "rewards"}
PARENTS = ("optimizers", "optimizer_cls_and_kwargs")
"""Go to transformers' Trainer as they are."""
ADAPTER = "peft_config"

_LOSS = "the loss is the algorithm: an Algorithm of yours has any (docs/architecture.md, Write your own)"
_METRICS = "an evaluation has the algorithm's metrics; watching=Watching(sample_evaluation=…) adds your own"
_TEXT = "rows are prompt + completion, messages or chosen + rejected: map the data set to these columns"
_REWARDS = "a reward is a function or an object with judge(group), which may hold a model"
_ENGINE = "completions come from engine=: any object with generate, sync and close"
_DATA = "rows are tokenized here: map the data set to columns of text"
INSTEAD = {
    "beta": "an option of the algorithm: build_algorithm(name, beta=…)",
    "compute_loss_func": _LOSS,
    "compute_metrics": _METRICS,
    "data_collator": "rows are laid out by execution=Execution(layout=…), which changes no number",
    "dataset_text_field": _TEXT,
    "environment_factory": "tools and several turns with an environment are not there",
    "eval_packing": "the layout is execution=Execution(layout=…)",
    "formatting_func": _TEXT,
    "generation_config": "sampling=Sampling(max_tokens=…, temperature=…)",
    "judge": _REWARDS,
    "loss_type": _LOSS,
    "max_completion_length": "sampling=Sampling(max_tokens=…)",
    "max_length": "a row longer than the model's context is refused: cut it in the data",
    "max_prompt_length": "a row longer than the model's context is refused: cut it in the data",
    "max_seq_length": "a row longer than the model's context is refused: cut it in the data",
    "model_init": "pass the model, or its name",
    "num_generations": "an option of the algorithm: build_algorithm(name, rollouts=…)",
    "packing": "rows are packed by themselves: execution=Execution(layout=…)",
    "preprocess_logits_for_metrics": _METRICS,
    "quantization_config": "a recipe's model.quantization beside model.adapter",
    "ref_model": "the reference is the model as it is handed over",
    "reward_model": _REWARDS,
    "reward_processing_classes": _REWARDS,
    "rollout_func": _ENGINE,
    "teacher_model": "teachers={'name': model}, for an algorithm that learns from one",
    "tools": "tools and several turns with an environment are not there",
    "value_model": "critics are not there: a baseline comes from the group",
}
"""What is not taken, and what takes its place."""


def sorted_out(theirs: Mapping[str, Any], own: Iterable[str]) -> dict[str, Any]:
    """The keywords that are taken, without those that are None. `own` are the trainer's.

    Raises:
        SetupError: one is not taken; says what takes its place.
        TypeError: nobody knows it.
    """
    given = {name: value for name, value in theirs.items() if value is not None}
    known = {*ALIASES, *PARENTS, ADAPTER}
    for name in theirs:
        if name in given and name in INSTEAD:
            raise SetupError(f"PostTrainer takes no {name}: {INSTEAD[name]}.")
        if name not in known and name not in INSTEAD:
            near = difflib.get_close_matches(name, {*own, *known}, n=1)
            raise TypeError(f"PostTrainer takes no {name}{f'; did you mean {near[0]}?' if near else '.'}")
    return given


def one_of(name: str, ours: Any, theirs: Mapping[str, Any]) -> Any:
    """What is given under our name or theirs.

    Raises:
        SetupError: both are given.
    """
    other = next(alias for alias, meant in ALIASES.items() if meant == name)
    if other not in theirs:
        return ours
    if ours is not None and not (isinstance(ours, (tuple, list)) and not ours):
        raise SetupError(f"{name}= and {other}= are one thing: pass one of them.")
    return theirs[other]
