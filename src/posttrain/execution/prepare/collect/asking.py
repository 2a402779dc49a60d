"""The rows of a step as questions, and the step in the words of `generate`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from posttrain.data.columns import names_of
from posttrain.data.encoding.teacher import Asked
from posttrain.data.overlap import Overlaps
from posttrain.data.reader import Reader
from posttrain.data.rows import DataReport, Problem
from posttrain.data.sources import Record
from posttrain.errors import DataError, RecipeError
from posttrain.estimator import Algorithm
from posttrain.execution.prepare.mixture import parts, records_of
from posttrain.execution.prepare.over_steps import played
from posttrain.model.load import context_of
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.recipe import Recipe
from posttrain.settings.data import DataConfig
from posttrain.settings.data.collect import Chosen, FeedbackSampling, InstanceFilter, RejectionSampling, key_of
from posttrain.settings.data.generate import Generate, Keep, OtherWriter, Rule
from posttrain.settings.rollout import SamplingConfig


def as_generate(chosen: Chosen, *, demonstrations: bool) -> Generate:
    """What a step writes, in the words of `generate`; of rejection sampling, `demonstrations` or rows of their own."""
    if isinstance(chosen, Generate):
        return chosen
    keep: list[Keep] = []
    if isinstance(chosen, RejectionSampling):
        keep = ["right", "finished", "unique", Rule(per_question=chosen.per_question)]
    sampled = {name: getattr(chosen, name) for name in SamplingConfig.model_fields}
    made = "demonstration" if demonstrations else "completion"
    return Generate.model_validate({**sampled, "n": chosen.k, "verdict": "grader", "keep": keep, "as": made})


def is_asked(step: Generate, record: Record) -> bool:
    """Whether a step asks a row, by what the steps before have made of it."""
    return step.rows == "all" or record.made == (step.rows == "made")


def questions(
    step: Generate,
    data: DataConfig,
    records: Iterable[Record],
    reads: tuple[Any, Sequence[int], int | None],
    room: dict[str, Any],
    key: str,
) -> tuple[list[Problem], DataReport]:
    """The rows as they are asked.

    Args:
        step: says what is asked.
        data: how rows are encoded.
        records: the rows.
        reads: the tokenizer of who writes, the ids that end its answers, and its context.
        room: for answers, in the words of `Reader.problems`.
        key: of the step, for messages.

    Raises:
        DataError: a row lacks a column that the template or the grader reads, or none is left.
    """
    template = step.prompt_template
    encoding = data if template is None else data.model_copy(update={"prompt_template": template})
    asked = records if template is None else map(_with_prompt, records)
    needs = ("answer",) if step.verdict == "grader" else ()
    return Reader(encoding, *reads).problems(asked, **room, needs=needs, anything=True, label=key)


def _with_prompt(record: Record) -> Record:
    """A row of text has no prompt, and may be asked about by a template all the same."""
    if record.columns.get("text") is None or {"prompt", "messages"} & record.columns.keys():
        return record
    return replace(record, columns={**record.columns, "prompt": ""})


def check_templates(data: DataConfig, first: Record) -> None:
    """That templates of later steps name columns that rows have, or that steps before them make. Those of the first step are
    found when its rows are read.

    Raises:
        DataError: one names another column.
    """
    known = {*first.columns, "prompt", "answer"}
    for number, step in enumerate(data.steps):
        if not isinstance(step, Generate):
            continue
        for name in names_of(step.prompt_template) if number and step.prompt_template is not None else ():
            if name not in known:
                raise DataError(
                    f"{first.where}: {key_of(number, data.collect)}.prompt_template names the column {name!r}, which the row "
                    f"does not have and no step before makes. It has {', '.join(first.columns)}."
                )
        known |= {step.column or step.made} | ({"reward"} if step.verdict != "none" else set())


def unsolved_at(chosen: Chosen) -> int:
    """How many answers must be right, where a step is about how many are."""
    return chosen.right if isinstance(chosen, InstanceFilter) else 1


def steps_told(recipe: Recipe) -> dict[str, str]:
    """For the plan: what is written before training, and by whom."""
    told: dict[str, str] = {}
    if recipe.environment is not None and recipe.data.collect is not None:
        [episodes] = recipe.data.steps
        assert not isinstance(episodes, Generate)
        told[key_of(0, recipe.data.collect)] = f"{episodes.k} episodes of the start model to each"
        told |= played(recipe.environment)
    for number, step in enumerate(recipe.data.steps if recipe.data.generates else ()):
        key = key_of(number, recipe.data.collect)
        if not isinstance(step, Generate):
            told[key] = f"{step.k} answers of the start model to each"
            continue
        other = step.writer if isinstance(step.writer, OtherWriter) else None
        who = str(step.writer) if other is None else str(other.stage or other.name or other.url)
        judged = "" if step.verdict == "none" else f", right by the {step.verdict}"
        asked = {"all": "each", "made": "each row that is made before", "source": "each row that nothing is made of"}[
            step.rows
        ]
        told[key] = f"{step.n} of {who} for {asked}{judged}; kept: {kept_by(step)}; as {step.column or step.made}"
    return told


def observed(recipe: Recipe) -> int:
    """Tokens of a row that its environment says, at most: after the last turn too, where that becomes a text."""
    if recipe.environment is None:
        return 0
    told = any(isinstance(step, FeedbackSampling) for step in recipe.data.steps)
    return recipe.environment.observed + recipe.environment.observation_tokens * told


def kept_by(step: Generate) -> str:
    """Its rules, for people."""
    return ", ".join(rule if isinstance(rule, str) else "{}: {:g}".format(*rule.given) for rule in step.rules) or "all"


def asked_first(
    recipe: Recipe, algorithm: Algorithm, model: Any, tokenizer: Any, looked: Overlaps
) -> tuple[list[Problem], DataReport]:
    """What the first step asks, as the student would read it; the templates of those after it are looked at."""
    step, key = recipe.data.steps[0], key_of(0, recipe.data.collect)
    [part] = parts(recipe.data)
    records, begun = looked.through(records_of(part, recipe.data, recipe.seed)), list[Record]()
    for record in records:
        begun.append(record)
        if record.fault is None:
            check_templates(recipe.data, record)
            break
    for number, later in enumerate(recipe.data.steps):
        room_for(model, later, later.max_tokens, f"{key_of(number, recipe.data.collect)}.max_tokens")
    room = room_for(model, step, step.max_tokens, f"{key}.max_tokens")
    asked = as_generate(step, demonstrations=algorithm.needs.own_demonstrations)
    reads = (tokenizer, eos_ids(model, tokenizer), context_of(model))
    return questions(asked, recipe.data, itertools.chain(begun, records), reads, room, key)


def room_for(
    model: Any, sampling: SamplingConfig | None, max_tokens: int, key: str, teacher: Asked | None = None
) -> dict[str, Any]:
    """That answers must find room in the context, the model's or the engine's, in the words of `Reader.problems`; and in that
    of a teacher who reads them after the same prompt.
    """
    served = sampling.vllm.max_model_len if sampling is not None and sampling.engine == "vllm" else None
    context = min((limit for limit in (context_of(model), served) if limit is not None), default=None)
    if context is not None and context <= max_tokens:
        raise RecipeError(f"{key}: {max_tokens} leaves no room in a context of {context}.")
    if teacher is not None and teacher.bound is not None and teacher.bound <= max_tokens:
        raise RecipeError(f"{key}: {max_tokens} leaves no room in what the teacher reads, {teacher.bound} tokens.")
    return {"room": max_tokens, "context": context}
