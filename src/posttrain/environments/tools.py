"""Tools that an environment offers: typed functions, by whose schemas calls are checked, and templates are told of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs

from posttrain.environments.base import Call, Message
from posttrain.rewards.reading.arguments import by_name

Function = Callable[..., str | Awaitable[str]]
SHOWN = 64  # characters of a name of the policy's that are said back
FAULTS = 3  # of a call, that are said


class Failed(str):
    """A result that says why a call failed: told to the policy as any other, and marked (`error: True`)."""

    __slots__ = ()


class Tools:
    """The tools of an episode.

    Args:
        functions: typed, with a docstring that says what they do, and descriptions in `Annotated[…, Field(description=…)]`.
            What they return is the observation, `Failed` where the call failed. What they raise is the environment's
            failure, and no observation.
    """

    def __init__(self, *functions: Function) -> None:
        self._tools = {function.__name__: _Tool(function) for function in functions}

    @property
    def schemas(self) -> Sequence[Mapping[str, Any]]:
        """JSON schemas, in the form in which chat templates are given them."""
        return [{"type": "function", "function": tool.schema} for tool in self._tools.values()]

    async def answer(self, calls: Sequence[Call]) -> list[Message]:
        """One message for each call, in their order: its result, or what is wrong with it."""
        return [await self._answer(call) for call in calls]

    async def _answer(self, call: Call) -> Message:
        tool = self._tools.get(call.name)
        if call.fault is not None:
            said = Failed(f"The call could not be read: {call.fault}.")
        elif tool is None:
            said = Failed(f"There is no tool {call.name[:SHOWN]!r}, but {', '.join(self._tools)}.")
        else:
            said = await tool.called(call.arguments)
        marked = {"error": True} if isinstance(said, Failed) else {}
        return {"role": "tool", "name": call.name if tool is not None else "unknown", "content": str(said), **marked}


class _Tool:
    def __init__(self, function: Function) -> None:
        self._function = function

        def given(**arguments: Any) -> Mapping[str, Any]:
            return arguments

        typed: Any = functools.wraps(function)(given)
        self._adapter = TypeAdapter[Any](typed, config=ConfigDict(strict=True))
        self._parameters = self._adapter.json_schema()
        for schema in self._parameters["properties"].values():
            schema.pop("title", None)

    @property
    def schema(self) -> Mapping[str, Any]:
        """Its name, what it does, and its parameters."""
        said = inspect.getdoc(self._function) or ""
        return {"name": self._function.__name__, "description": said, "parameters": self._parameters}

    async def called(self, arguments: Mapping[str, Any]) -> str:
        """Its result, or what is wrong with the arguments."""
        try:
            checked = self._adapter.validate_python(ArgsKwargs((), by_name(arguments, self._parameters["properties"])))
        except ValidationError as error:
            faults = [_fault(one["type"], one["loc"], one["msg"]) for one in error.errors(include_input=False)[:FAULTS]]
            return Failed(f"{self._function.__name__} was not called: {'; '.join(faults)}.")
        result = self._function(**checked)
        return result if isinstance(result, str) else await result


def _fault(kind: str, place: tuple[int | str, ...], message: str) -> str:
    name = ".".join(map(str, place))[:SHOWN]
    if kind.startswith("missing"):
        return f"{name} is missing"
    return f"it has no argument {name!r}" if kind == "unexpected_keyword_argument" else f"{name}: {message}"
