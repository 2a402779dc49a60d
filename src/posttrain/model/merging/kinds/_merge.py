"""What a way to merge models is, and the options that several have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from posttrain.settings.base import Config

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.model.merging.tensors import Same

Formula = Callable[["Same"], "Iterator[Tensor]"]
"""The tensors of one name → the merged one, block by block: flat, in float64."""
Density = Annotated[float, Field(gt=0, le=1)]


class MergeConfig(Config, ABC):
    """The options of one way to merge models."""

    least: ClassVar[int] = 2
    most: ClassVar[int | None] = None
    """Models that it merges, the base not counted."""

    method: str
    """Which way; the other keys here are its options."""
    models: Annotated[list[str], Field(min_length=1)]
    """What is merged: folders, runs or names of the hub; in a stage, names of stages before it, previous or base."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of what is written; as the first of the models has it if not set."""

    @model_validator(mode="after")
    def _are_as_many(self) -> MergeConfig:
        given, most = len(self.models), self.most
        if given < self.least or (most is not None and given > most):
            many = f"{self.least} or more" if most is None else str(self.least)
            base = " beside the base" if isinstance(self, OverBase) else ""
            raise ValueError(f"models: {self.method} takes {many}{base}, and here {'is' if given == 1 else 'are'} {given}")
        return self

    @property
    def places(self) -> list[str]:
        """The models in the order in which the formula takes them; the first gives config and tokenizer."""
        return self.models

    @property
    def told(self) -> str:
        """For people."""
        options = self.model_dump(exclude={"method", "models", "base"}, exclude_none=True)
        named = ", ".join(f"{name} {value}" for name, value in options.items())
        return f"{self.method} of {' and '.join(self.places)}" + (f" ({named})" if named else "")

    @abstractmethod
    def build(self) -> Formula:
        """The formula that these options describe."""


class Weighted(MergeConfig):
    """Each model has a weight."""

    weights: list[float] | None = None
    """Of each of the models, in their order."""

    @model_validator(mode="after")
    def _are_of_the_models(self) -> Weighted:
        if self.weights is not None and len(self.weights) != len(self.models):
            raise ValueError(f"weights: there are {len(self.weights)}, of {len(self.models)} models: give one for each")
        return self


class OverBase(MergeConfig):
    """What is merged are task vectors: what each model has learnt since it was the base."""

    base: str
    """The model that the others were trained from; in a stage the start model of the recipe, if not set."""

    @property
    def places(self) -> list[str]:
        """The base, then the models."""
        return [self.base, *self.models]


class Vectors(OverBase, Weighted):
    """Task vectors, each with a weight, 1 if not set."""

    @property
    def scales(self) -> list[float]:
        """The weights."""
        return self.weights if self.weights is not None else [1.0] * len(self.models)
