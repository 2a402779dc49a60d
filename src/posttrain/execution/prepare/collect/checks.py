"""That what is made before training is of use in it."""

from __future__ import annotations

from posttrain.data.columns import DEMONSTRATIONS, names_of, shown_by
from posttrain.errors import RecipeError
from posttrain.estimator import Algorithm
from posttrain.execution.prepare.collect.become import OTHERS
from posttrain.execution.prepare.collect.writers import check_place
from posttrain.model.load import outline
from posttrain.recipe import Recipe
from posttrain.settings.data.collect import FeedbackSampling, PairSampling, RejectionSampling, key_of
from posttrain.settings.data.generate import PAIRED, START, Generate, OtherWriter
from posttrain.settings.doors.permissions import Permissions
from posttrain.settings.model import ModelConfig
from posttrain.telling import tell


def check_collected(recipe: Recipe, algorithm: Algorithm) -> None:
    """Refuses steps whose rows the algorithm does not read.

    Raises:
        RecipeError: the step, and what the algorithm reads.
    """
    data, needs = recipe.data, algorithm.needs
    if any(isinstance(step, PairSampling) for step in data.steps):
        if not needs.preference or needs.unit != 2:
            raise RecipeError(f"data.collect.pairs: {algorithm.name} does not learn from pairs: take one that does, as dpo.")
        return
    making = (number for number, step in enumerate(data.steps) if isinstance(step, (RejectionSampling, FeedbackSampling)))
    made = "".join(key_of(number, data.collect).rpartition(".")[2] for number in [*making][:1])
    if data.makes_data and (needs.preference or needs.demonstration not in ("row", "prefix")):
        raise RecipeError(f"data.collect: {made} makes demonstrations, and {algorithm.name} takes none with its questions.")
    if data.makes_data and needs.weight != "none":
        raise RecipeError(
            f"data.collect: {made} makes demonstrations of like worth, and {algorithm.name} reads the column {needs.weight}."
        )
    if data.makes_values and needs.baseline != "value":
        raise RecipeError(f"data.collect: value says what questions are worth, and {algorithm.name} does not ask.")
    summed = [(reward.weight, reward.verdict) for reward in recipe.rewards if reward.weight]
    if data.makes_values and summed and summed != [(1.0, True)]:
        tell(
            "values-of-verdicts",
            "data.collect: value counts a right answer as 1 and a wrong one as 0, and rewards are summed otherwise: what is "
            "left of them is no advantage. Take one reward, with weight: 1 and verdict: true, or a column value of your own.",
        )
    for number, step in enumerate(data.steps):
        if isinstance(step, Generate):
            _check_made(recipe, algorithm, number, step)


def _check_made(recipe: Recipe, algorithm: Algorithm, number: int, step: Generate) -> None:
    data, key = recipe.data, key_of(number, recipe.data.collect)
    read = _read_by(recipe, algorithm)
    if step.rows == "made" and not number:
        raise RecipeError(f"{key}.for: made asks what a step before has made, and this is the first.")
    if step.column is not None:
        _check_column(recipe, number, step.column, {*read, *algorithm.needs.columns})
        return
    later = number + 1 < len(data.steps) and step.made not in PAIRED
    if step.made not in read and not later:
        raise RecipeError(
            f"{key}.as: {algorithm.name} reads {', '.join(sorted(read))}, and {step.made} is not among them"
            + (": a step after this one must write what is learnt." if step.made == "prompt" else ".")
        )
    weight = algorithm.needs.weight
    judged = weight == "reward" and step.verdict != "none"
    if step.made in ("completion", "text") and weight != "none" and not judged and not algorithm.needs.rollouts:
        raise RecipeError(
            f"{key}.as: nobody says what a {step.made} is worth that is written now, and {algorithm.name} reads the column "
            f"{weight}" + (": set verdict: grader." if weight == "reward" else ".")
        )


def _check_column(recipe: Recipe, number: int, column: str, read: set[str]) -> None:
    """That a column is read by what comes after: a template, another side of a pair, a transform, or training."""
    later = recipe.data.steps[number + 1 :]
    read = {*read, *(name for one in recipe.data.transforms for name in one.columns)}
    for step in later:
        if isinstance(step, Generate):
            read |= {*names_of(step.prompt_template or recipe.data.prompt_template)}
            read |= {*OTHERS[step.made]} if step.made in PAIRED and step.other_side == "data" else set[str]()
    if column not in read:
        raise RecipeError(
            f"{key_of(number, recipe.data.collect)}.column: nothing reads {column}: name it in a template of a later "
            "step, in data.prompt_template or in a transform."
        )


def _read_by(recipe: Recipe, algorithm: Algorithm) -> set[str]:
    """The columns of rows that training reads, of those that can be written."""
    needs = algorithm.needs
    wrapped = {*names_of(recipe.data.prompt_template), *names_of(needs.teacher_template)} - {"prompt"}
    if needs.rollouts:
        shown = shown_by(needs)
        return {"prompt", "answer", *wrapped, *({"demonstration", "completion"} if shown == DEMONSTRATIONS else shown)}
    if needs.crossed:
        return {"prompts", "completions", *wrapped}
    return {*needs.sides, *wrapped} if needs.sides else {"completion", "text", *wrapped}


def check_writers(recipe: Recipe, permissions: Permissions) -> None:
    """That those who write can be had, as far as that is known before anything is loaded; a stage is not there yet.

    Raises:
        SetupError: a model cannot be found, or a server is on another machine without leave.
    """
    for number, step in enumerate(recipe.data.steps):
        if not isinstance(step, Generate) or step.writer == START:
            continue
        key = f"{key_of(number, recipe.data.collect)}.writer"
        other = step.writer if isinstance(step.writer, OtherWriter) else recipe.model.teachers[step.writer]
        if other.url is not None:
            check_place(key, other.url, allow_remote=permissions.remote_engine)
        elif not (isinstance(other, OtherWriter) and other.stage is not None):
            outline(ModelConfig(name=other.name), seed=0)
