"""An environment that an OpenEnv server has: a session of it for each episode, over the messages of its WebSocket.

The client of the package `openenv` speaks the same few messages; it brings a web interface and its pins with it, so that only
`websockets` is needed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, model_validator

from posttrain.environments.base import Call, Environment, Message, Start, Step, Turn
from posttrain.environments.kinds._templates import fields
from posttrain.environments.options import EnvironmentConfig
from posttrain.errors import SetupError
from posttrain.rewards.reading.arguments import by_name
from posttrain.rewards.values import Refused
from posttrain.settings.base import Count, is_address, is_here

FRAME = 2**26  # bytes of a message
ASKING = 10.0  # seconds for the server's schemas
WAITING, PAUSE = 10.0, 0.05  # seconds for a place that a session before has not left yet
FULL, WRONG = "CAPACITY_REACHED", "VALIDATION_ERROR"
FAULTS = 3  # of a call, that are said


def _is_server(url: str) -> str:
    parts = urlsplit(url)
    if parts.username is not None or parts.query or parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"ws://HOST:PORT is expected, without a user or a query, not {url}")
    is_address(_http(url))
    return url.rstrip("/").removesuffix("/ws")


def _http(url: str) -> str:
    return f"http{url.removeprefix('ws')}"


class OpenEnvConfig(EnvironmentConfig):
    """An environment of an OpenEnv server that runs already. One on another machine needs --allow-remote-environment."""

    says_right: ClassVar[bool] = True
    makes_tasks: ClassVar[bool] = True

    name: Literal["openenv"] = "openenv"
    url: Annotated[str, AfterValidator(_is_server)]
    """ws://HOST:PORT of the server."""
    action: Literal["message", "call"] = "message"
    """What a turn is sent as: message, its text under `key`; call, the arguments of each tool call of it, one action after
    the other. The tool has the server's schema of actions, and a turn without a call ends the episode."""
    key: str | None = None
    """Of an action that is a message: where the text stands, `message` if not set. Of a call: the tool's name, `act` if not
    set."""
    observation: str | list[str]
    """The key of an observation that the policy is told, as text; or several, told as JSON."""
    question: Annotated[str, fields("observation", needed=False)] = "{observation}"
    """What the policy is asked first; {observation} is what the server says at the beginning."""
    columns: list[str] = []
    """Columns of a row that the server's reset is given, beside the seed."""
    right: float | None = None
    """An episode that was paid so much in all is right; if not set, rewards of yours say what is right."""
    sessions: Count = 1
    """That the server has at a time, its max_concurrent_envs; so many episodes are played at a time."""

    @property
    def package(self) -> tuple[str, str]:
        """See `EnvironmentConfig`."""
        return "websockets", "'posttrain[openenv]'"

    @property
    def at_once(self) -> int:
        """See `EnvironmentConfig`."""
        return self.sessions

    @property
    def other_machine(self) -> str | None:
        """See `EnvironmentConfig`."""
        return None if is_here(self.url) else self.url

    @property
    def placed(self) -> str:
        """Where the text stands, or what the tool is called."""
        return self.key or ("message" if self.action == "message" else "act")

    @model_validator(mode="after")
    def _calls_have_a_format(self) -> OpenEnvConfig:
        if self.action == "call" and self.format == "none":
            raise ValueError("action: call needs the format in which the policy writes calls: add format: hermes, or another")
        return self

    def build(self) -> Callable[[], Environment]:
        """With the server's schema of actions."""
        schema = _schema(self)
        return lambda: OpenEnvSession(self, schema)


def _schema(config: OpenEnvConfig) -> Mapping[str, Any]:
    """Of actions.

    Raises:
        SetupError: nobody answers there, or an action has no such key.
    """
    import httpx  # takes a while

    address = f"{_http(config.url)}/schema"
    try:
        answer = httpx.get(address, timeout=ASKING, trust_env=config.other_machine is not None).raise_for_status()
        schema = dict(answer.json()["action"])
        known = {name: one for name, one in schema.get("properties", {}).items() if name != "metadata"}
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise SetupError(
            f"environment.url: no OpenEnv server answers at {address} ({reason}). Start it, and try again."
        ) from None
    if config.action == "message" and config.placed not in known:
        raise SetupError(
            f"environment.key: an action of the server at {config.url} has no {config.placed!r}, but "
            f"{', '.join(known) or 'nothing'}."
        )
    return {**schema, "properties": known}


class OpenEnvSession:
    """An `Environment`: one connection, and so one session of the server."""

    def __init__(self, config: OpenEnvConfig, schema: Mapping[str, Any]) -> None:
        self._config, self._schema = config, schema
        self._socket: Any = None
        self._paid = 0.0

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        """See `Environment`."""
        if lacking := [name for name in self._config.columns if name not in columns]:
            raise Refused(f"the row has no column {lacking[0]!r}, which environment.columns names")
        data = {**{name: columns[name] for name in self._config.columns}, "seed": seed}
        begun = await self._begun(data)
        if begun.get("done"):
            raise Refused("the episode is done before its first turn")
        asked = self._config.question.format(observation=self._said(begun))
        return Start([{"role": "user", "content": asked}], self._tools())

    async def step(self, turn: Turn) -> Step:
        """See `Environment`."""
        if self._config.action == "message":
            return self._came(await self._data("step", {self._config.placed: turn.text}), "user", 0.0)
        step, said, paid = Step(done=True, info=self._verdict()), list[Message](), 0.0
        for call in turn.calls:
            step = await self._called(call, paid)
            said, paid = [*said, *step.messages], step.reward or 0.0
            if step.done:
                break
        return Step(said, paid if turn.calls else None, step.done, step.info)

    async def close(self) -> None:
        """See `Environment`."""
        if (socket := self._socket) is not None:
            self._socket = None
            try:  # the server ends the session, and then the connection
                with contextlib.suppress(Exception):
                    await socket.send(json.dumps({"type": "close"}))
                    await socket.wait_closed()
            finally:
                socket.transport.abort()

    def _tools(self) -> Sequence[Mapping[str, Any]]:
        if self._config.action == "message":
            return ()
        said = str(self._schema.get("description", ""))
        parameters = {name: value for name, value in self._schema.items() if name not in ("title", "description")}
        about = {"name": self._config.placed, "description": said, "parameters": parameters}
        return [{"type": "function", "function": about}]

    async def _called(self, call: Call, paid: float) -> Step:
        """An action; what is wrong with a call is said to the policy."""
        tool = self._config.placed
        if call.fault is not None:
            return self._told(f"The call could not be read: {call.fault}.", paid)
        if call.name != tool:
            return self._told(f"There is no tool {call.name[:64]!r}, but {tool}.", paid)
        action = by_name(call.arguments, self._schema["properties"])
        try:
            return self._came(await self._data("step", action), "tool", paid)
        except _Invalid as error:
            return self._told(f"{tool} was not called: {error}.", paid)

    def _told(self, text: str, paid: float) -> Step:
        return Step([{"role": "tool", "name": self._config.placed, "content": text}], paid, info=self._verdict())

    def _came(self, given: Mapping[str, Any], role: str, before: float) -> Step:
        paid = float(given.get("reward") or 0.0)
        self._paid += paid
        message = {"role": role, "content": self._said(given), **({"name": self._config.placed} if role == "tool" else {})}
        return Step([message], before + paid, bool(given.get("done")), self._verdict())

    def _verdict(self) -> dict[str, Any]:
        return {} if self._config.right is None else {"correct": self._paid >= self._config.right}

    def _said(self, given: Mapping[str, Any]) -> str:
        """What the policy is told of an observation."""
        observed, wanted = given.get("observation"), self._config.observation
        names = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(observed, dict) or (lacking := [name for name in names if name not in observed]):
            there = ", ".join(observed) if isinstance(observed, dict) else "nothing"
            raise Refused(f"the observation has no {lacking[0] if isinstance(observed, dict) else names[0]!r}, but {there}")
        value = observed[wanted] if isinstance(wanted, str) else {name: observed[name] for name in names}
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    async def _begun(self, data: dict[str, Any]) -> Mapping[str, Any]:
        """A session, as soon as the server has a place for it: one that has ended may hold its own a little longer."""
        connect: Any = import_module("websockets.asyncio.client").connect
        loop = asyncio.get_running_loop()
        last = loop.time() + WAITING
        while True:
            proxy = True if self._config.other_machine else None
            self._socket = await connect(
                f"{self._config.url}/ws", proxy=proxy, max_size=FRAME, open_timeout=None, ping_interval=None
            )
            try:
                return await self._data("reset", data)
            except _Full as error:
                await self.close()
                if loop.time() > last:
                    raise Refused(f"the server has no place: {error}; see environment.sessions") from None
                await asyncio.sleep(PAUSE)

    async def _data(self, kind: str, data: dict[str, Any]) -> Mapping[str, Any]:
        """What the server answers.

        Raises:
            _Invalid: the action is none.
            _Full: there is no place for the session.
            Refused: any other error of the server's.
        """
        closed: Any = import_module("websockets.exceptions").ConnectionClosed
        with contextlib.suppress(closed):  # why it was closed may be there to be read
            await self._socket.send(json.dumps({"type": kind, "data": data}))
        try:
            given = json.loads(await self._socket.recv())
        except closed:
            raise Refused("the server ended the session") from None
        told = given.get("data") or {}
        if given.get("type") != "error":
            return told
        said, code = str(told.get("message", "an error"))[:200], told.get("code")
        if code == WRONG and kind == "step" and self._config.action == "call":
            faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in told.get("errors", ())[:FAULTS]]
            raise _Invalid("; ".join(faults) or said)
        if code == FULL:
            raise _Full(said)
        raise Refused(f"the server says: {said} ({code})")


class _Invalid(Exception):
    """What was sent is no action."""


class _Full(Exception):
    """No session is free."""
