"""Teachers as a user hands them over, or as a recipe names them → models that score rows."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from posttrain.errors import SetupError
from posttrain.estimator.algorithm import Algorithm
from posttrain.model.frozen.teacher import load_teacher
from posttrain.model.load import context_of
from posttrain.rollout.vllm.teacher import ServedTeacher
from posttrain.settings.model import TeacherConfig

NOBODY: Mapping[str, Any] = MappingProxyType({})


def as_teachers(given: Mapping[str, Any], algorithm: Algorithm, tokenizer: Any) -> dict[str, Any]:
    """Models by name: as they are, or loaded, or behind a server on this machine.

    Raises:
        SetupError: the algorithm takes none, or takes one and there are none or several; or one cannot be loaded.
        EngineError: a server does not answer.
    """
    takes = algorithm.needs.given_teacher
    if not isinstance(given, Mapping):
        raise SetupError(f"teachers: {{'name': model}} is expected, not {type(given).__name__}.")
    if len(given) != takes:
        wanted = "takes one teacher: pass teachers={'name': model}" if takes else "takes no teacher: leave teachers= out"
        raise SetupError(f"{algorithm.name} {wanted}.")
    named = {name: str(one) for name, one in given.items() if isinstance(one, str) or hasattr(one, "__fspath__")}
    keys = {name: "url" if one.startswith(("http://", "https://")) else "name" for name, one in named.items()}
    described = {name: TeacherConfig.model_validate({keys[name]: one}) for name, one in named.items()}
    return {**given, **{name: made_teacher(name, one, tokenizer) for name, one in described.items()}}


def made_teacher(name: str, config: TeacherConfig, tokenizer: Any, *, allow_remote: bool = False) -> Any:
    """A teacher over the tokens of the student's `tokenizer`: a model that is loaded, or one behind a server.

    Raises:
        SetupError: it cannot be loaded, has another vocabulary, or may not be asked.
        EngineError: its server does not answer.
    """
    if config.url is not None:
        return ServedTeacher(name, config.url, tokenizer, allow_remote=allow_remote)
    return load_teacher(name, config, tokenizer)


def known_to(teacher: Any) -> int | None:
    """Tokens of a row that it reads at most, where it says so."""
    return teacher.context if isinstance(teacher, ServedTeacher) else context_of(teacher)
