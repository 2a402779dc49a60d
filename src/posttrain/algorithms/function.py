"""A loss of yours: a function that returns an `Algorithm`, by path, or brought by an installed package."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, Literal

from posttrain.algorithms.options import AlgorithmConfig
from posttrain.settings.base import Count, Template
from posttrain.settings.doors.door import Door, check_call, installed, takes

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm

FOLLOWS = ("rollouts", "updates", "max_tokens", "teacher_template")
"""What follows from a recipe's rollout, training and teacher, and is given to a function that names it."""


class FunctionAlgorithm(Door, AlgorithmConfig):
    """A function of yours, by path, that returns an Algorithm; needs --allow-code."""

    name: Literal["function"] = "function"
    rollouts: Count | None = None
    """Completions for each question. The recipe fills these four; the function gets those that it names."""
    updates: Count | None = None
    """Optimizer steps for each collection."""
    max_tokens: Count | None = None
    """Of the longest answer."""
    teacher_template: Template | None = None
    """What the teacher is asked in place of the prompt."""

    def build(self) -> Algorithm:
        """What the function returns, tried on a small batch."""
        from posttrain.estimator.algorithm import Algorithm
        from posttrain.estimator.trial import try_out

        function = self.load()
        both = [name for name in FOLLOWS if name in self.options and getattr(self, name) is not None]
        if both:
            raise ValueError(
                f"{self.path}: options.{both[0]} follows from rollout, training.rows_per_step or model.teachers: leave it out"
            )
        given: dict[str, Any] = {name: value for name in FOLLOWS if (value := getattr(self, name)) is not None}
        options = {**self.options, **{name: value for name, value in given.items() if takes(function, name)}}
        check_call(self.path, function, options)
        try:
            made = function(**options)
        except Exception as error:  # code of the user's may fail in any way
            raise ValueError(f"{self.path} raised {type(error).__name__}: {error}") from error
        if not isinstance(made, Algorithm):
            raise ValueError(f"{self.path} returned {type(made).__name__}, and a posttrain.Algorithm is expected")
        try_out(made)
        return made


def installed_algorithm(point: EntryPoint, brought: Any) -> type[FunctionAlgorithm]:
    """The config of a function that an installed package brings; its options stand under `options`."""
    if not callable(brought):
        raise ValueError(f"{point.value} is neither a config class with build nor a function that returns an Algorithm")
    return installed(FunctionAlgorithm, point.name, point.value)
