"""Who writes data before training: the teachers and the stages of a recipe that `data.collect` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from posttrain.settings.data import DataConfig
from posttrain.settings.data.collect import key_of
from posttrain.settings.data.generate import START, Generate
from posttrain.settings.model import TeacherConfig

Values = dict[str, Any]
PREVIOUS = "previous"
"""The writer that is the model which the stage before has trained; in the first, the model itself."""


def collected_in(data: Any) -> dict[str, Values]:
    """The steps of the values of `data`, each by its key; of the wrong type, none."""
    collect = data.get("collect") if isinstance(data, dict) else None
    steps = {"data.collect": collect}
    if isinstance(collect, list):
        steps = {f"data.collect.{number}": step for number, step in enumerate(collect)}
    return {key: step for key, step in steps.items() if isinstance(step, dict)}


def with_steps(values: Values, change: Callable[[Values], Values]) -> Values:
    """The values of a recipe with each of these steps changed."""
    data = values["data"]
    collect = data["collect"]
    changed: Any = change(collect) if isinstance(collect, dict) else None
    if isinstance(collect, list):
        changed = [change(step) if isinstance(step, dict) else step for step in collect]
    return {**values, "data": {**data, "collect": changed}}


def with_writers(values: Values, number: int, before: Mapping[str, str]) -> Values:
    """A stage's values, its writers that are stages before it by their final models.

    Args:
        values: of the stage.
        number: of the stage, from 1.
        before: the folders of those before it, by name.

    Raises:
        ValueError: a writer is neither the stage's own model, nor a teacher, nor a stage before it.
    """
    steps = collected_in(values.get("data"))
    model = values.get("model")
    teachers = model.get("teachers") if isinstance(model, dict) else None
    trained = {**before, PREVIOUS: list(before.values())[-1]} if before else {}
    known = [START, "start", *([] if before else [PREVIOUS]), *(teachers if isinstance(teachers, dict) else ())]
    for key, step in steps.items():
        writer = step["generate"].get("writer") if isinstance(step.get("generate"), dict) else None
        if isinstance(writer, str) and writer not in known and writer not in trained:
            raise ValueError(f"stages.{number - 1}.{key}.generate.writer: {_unknown(writer, teachers or (), before)}")

    def found(step: Values) -> Values:
        generate = step.get("generate")
        if not isinstance(generate, dict) or not isinstance(writer := generate.get("writer"), str):
            return step
        if writer == PREVIOUS and not before:
            return {**step, "generate": {**generate, "writer": START}}
        if writer in known:
            return step
        return {**step, "generate": {**generate, "writer": {"stage": writer, "name": f"{trained[writer]}/final"}}}

    return with_steps(values, found) if steps else values


def _unknown(writer: str, teachers: Any, stages: Any) -> str:
    return (
        f"{writer} is neither self, nor one of model.teachers ({', '.join(teachers) or 'none'}), nor a stage before this one "
        f"({', '.join(stages) or 'none'}), of which previous is the last; another model is {{name: …}} or {{url: …}}"
    )


def writers_of(data: DataConfig) -> list[str]:
    """The teachers that write."""
    steps = [step for step in data.steps if isinstance(step, Generate)]
    return [step.writer for step in steps if isinstance(step.writer, str) and step.writer != START]


def learnt_from(teachers: Mapping[str, TeacherConfig], data: DataConfig, *, learns: bool) -> dict[str, TeacherConfig]:
    """The teachers that score rows, for an algorithm that `learns` from one: of several those that do not write."""
    if not learns:
        return {}
    written = writers_of(data) if len(teachers) > 1 else []
    return {name: one for name, one in teachers.items() if name not in written}


def check_teachers(
    algorithm: str, teachers: Mapping[str, TeacherConfig], data: DataConfig, *, learns: bool, of_stages: bool
) -> None:
    """That each teacher is of use, and each writer is there.

    Args:
        algorithm: its name.
        teachers: of the recipe.
        data: which may have some of them write.
        learns: the algorithm learns from one.
        of_stages: the recipe has stages, of which each is checked by itself.

    Raises:
        ValueError: the key, and what to do.
    """
    if of_stages:
        return
    written, scoring = writers_of(data), learnt_from(teachers, data, learns=learns)
    for number, step in enumerate(data.steps):
        if isinstance(step, Generate) and isinstance(step.writer, str) and step.writer not in (START, *teachers):
            raise ValueError(f"{key_of(number, data.collect)}.writer: {_unknown(step.writer, teachers, ())}")
        served = teachers.get(step.writer) if isinstance(step, Generate) and isinstance(step.writer, str) else None
        if served is not None and served.url is not None and step.engine != "hf":
            raise ValueError(
                f"{key_of(number, data.collect)}.engine: {step.engine} samples from models that are loaded here, and the "
                "writer is a server"
            )
    if learns and len(scoring) != 1:
        wanted = "one: add {NAME: {name: …}}, with a folder or a name of the hub"
        if scoring:
            raise ValueError(f"model.teachers: {algorithm} learns from one, and there are {', '.join(scoring)}")
        raise ValueError(f"model.teachers: {algorithm} learns from {wanted}")
    if idle := [name for name in teachers if name not in (*written, *scoring)]:
        raise ValueError(f"model.teachers: {algorithm} learns from no teacher, and {idle[0]} writes nothing (data.collect)")
    told = [name for name, one in teachers.items() if name not in scoring and one.template is not None]
    if told:
        raise ValueError(
            f"model.teachers.{told[0]}.template: {told[0]} only writes, and what it is asked then is prompt_template in "
            "data.collect"
        )
