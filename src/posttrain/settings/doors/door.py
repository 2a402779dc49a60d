"""The door for code of the user's in a recipe: where an object lies, and the options that it is given."""

from __future__ import annotations

import inspect
import json
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, ValidationInfo, create_model, field_validator

from posttrain.settings.base import Config
from posttrain.settings.doors import code


def _placed(path: str, info: ValidationInfo) -> str:
    return code.placed(path, (info.context or {}).get("folder"))


class Door(Config):
    """An object of the user's code. It runs where --allow-code says so, or where an installed package brings it."""

    trusted: ClassVar[bool] = False
    """An installed package brings it by an entry point: who installs a package trusts it."""
    behind: ClassVar[type[Door] | None] = None
    """The door that such a one was made of."""

    name: str
    """`function` or `class`; or the name by which an installed package brings it."""
    path: Annotated[str, AfterValidator(_placed)]
    """`file.py:object`, relative to the recipe's file, or `package.module:object`, or `package.module.object`."""
    options: dict[str, Any] = {}
    """Keyword arguments of it."""

    @property
    def label(self) -> str:
        """What the object is called, or the name that an installed package gives it."""
        return self.name if self.trusted else code.object_name(self.path)

    def __reduce__(self) -> Any:
        """Runs of a study go to other processes, where the class of an installed object must be made again."""
        if self.behind is None:
            return super().__reduce__()
        return _made_again, (self.behind, self.label, self.path, self.model_dump())

    def load(self) -> Any:
        """The object.

        Raises:
            ValueError: it cannot be had, or is nothing that can be called.
        """
        found = code.load(self.path)
        if not callable(found):
            raise ValueError(f"{self.path} is {type(found).__name__}, and a function is expected")
        return found


class DoorToProcess(Door):
    """An object that runs in another process, so that its options must be plain data."""

    @field_validator("options")
    @classmethod
    def _are_plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"they go to another process as JSON: {error}") from None
        return options


D = TypeVar("D", bound=Door)


@cache
def installed(door: type[D], name: str, path: str) -> type[D]:
    """The door to one object that an installed package brings, under a name of its own."""
    fields: dict[str, Any] = {"name": (Literal[name], name), "path": (Literal[path], path)}
    made = create_model(name, __base__=door, **fields)
    made.trusted, made.behind = True, door
    return made


def _made_again(door: type[Door], name: str, path: str, values: dict[str, Any]) -> Door:
    return installed(door, name, path).model_validate(values)


def check_call(path: str, function: Any, given: dict[str, Any]) -> None:
    """Whether a function takes these keyword arguments, and needs no others.

    Raises:
        ValueError: says which.
    """
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        raise ValueError(f"{path}: {error}; its options are {', '.join(given) or 'none'}") from None


def takes(function: Any, name: str) -> bool:
    """Whether a function names this parameter."""
    return name in inspect.signature(function).parameters
