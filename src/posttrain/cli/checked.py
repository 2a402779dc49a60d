"""Options of a command, checked by the config that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from posttrain.errors import RecipeError
from posttrain.settings.faults import faults

T = TypeVar("T", bound=BaseModel)


def checked(kind: type[T], values: Mapping[str, Any]) -> T:
    """A config of these values.

    Raises:
        RecipeError: says which is wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise RecipeError(str(faults(error)[0])) from None
