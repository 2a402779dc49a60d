"""Several vLLM servers as one engine: what is asked is spread over them, and one that fails is taken out."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

from posttrain.errors import EngineError
from posttrain.rollout.vllm.backend import Answer, Ask, engine_arguments
from posttrain.rollout.vllm.process import ServerProcess
from posttrain.rollout.vllm.server import Server
from posttrain.settings.rollout import VLLMConfig
from posttrain.telling import tell

PICKLED = {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}  # handles to a GPU's memory come so, and only over the loopback


class Servers:
    """A `Backend` over one server or several.

    The samples of a question, whose prompt is then computed once, go to one server; a server that has no more to do takes
    over what another has not begun. One that fails is taken out for the rest of the run, and told; what it has not
    answered is asked again of the others, with the same seeds. The last one's fault is an error.
    """

    def __init__(self, servers: Sequence[Server]) -> None:
        self.running = list(servers)
        self.context = min(server.context for server in servers)

    def submit(self, asks: Sequence[Ask], options: dict[str, Any]) -> list[Answer]:
        """See `Backend`."""
        answers: dict[int, Answer] = {}
        while left := [number for number in range(len(asks)) if number not in answers]:
            shares = _dealt(left, asks, len(self.running))
            most = -(-len(left) // len(shares))
            self._together(
                server.answer(_taken(asks, share, shares), options, answers, most)
                for server, share in zip(self.running, shares, strict=True)
            )
        return [answers[number] for number in range(len(asks))]

    def each(self, ask: Ask, options: dict[str, Any]) -> dict[str, Answer]:
        """See `Backend`."""
        answers: dict[str, dict[int, Answer]] = {server.url: {} for server in self.running}
        self._together(server.answer(iter([(0, ask)]), options, answers[server.url], 1) for server in self.running)
        return {server.url: answers[server.url][0] for server in self.running}

    def rest(self) -> None:
        """See `Backend`: a server keeps what it has."""

    def rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        """See `Backend`."""
        self._by_each(lambda server: server.rpc(method, kwargs))

    def reset_prefix_cache(self) -> None:
        """See `Backend`."""
        self._by_each(Server.reset_prefix_cache)

    @property
    def names(self) -> list[str]:
        """See `Backend`."""
        return [server.url for server in self.running]

    def take_out(self, faults: dict[str, EngineError]) -> None:
        """See `Backend`."""
        for server in [server for server in self.running if server.url in faults]:
            fault = faults[server.url]
            if len(self.running) == 1:
                raise EngineError(f"{fault} {server.last_words()}".rstrip()) from fault
            self.running.remove(server)
            server.close()
            left = "one other" if len(self.running) == 1 else f"{len(self.running)} others"
            tell("engine-lost", f"{fault} It is out for the rest of the run, which goes on with {left}.")

    def close(self) -> None:
        """See `Backend`."""
        while self.running:
            self.running.pop().close()

    def _together(self, work: Iterator[Coroutine[Any, Any, None]]) -> None:
        async def gathered() -> list[BaseException | None]:
            return await asyncio.gather(*work, return_exceptions=True)

        with ThreadPoolExecutor(1) as thread:  # the caller may run an event loop of its own
            self._heard(thread.submit(asyncio.run, gathered()).result())

    def _by_each(self, call: Callable[[Server], None]) -> None:
        def fault(server: Server) -> BaseException | None:
            try:
                call(server)
            except EngineError as error:
                return error
            return None

        with ThreadPoolExecutor(len(self.running)) as threads:
            self._heard(list(threads.map(fault, self.running)))

    def _heard(self, outcomes: Sequence[BaseException | None]) -> None:
        faults: dict[str, EngineError] = {}
        for server, outcome in zip(self.running, outcomes, strict=True):
            if isinstance(outcome, EngineError):
                faults[server.url] = outcome
            elif outcome is not None:
                raise outcome
        self.take_out(faults)


def start_servers(folder: Path, dtype: str, config: VLLMConfig, *, cpu: bool) -> Servers:
    """Those that the recipe names by their addresses, or those that it lets start, all at once: one for each device, or one.

    Raises:
        SetupError: a server that is there cannot be controlled.
        EngineError: one does not start or answer.
    """
    arguments = engine_arguments(config, folder, dtype, cpu=cpu)
    processes: list[ServerProcess] = []
    servers: list[Server] = []
    try:
        if config.addresses:
            return Servers([Server(url, config) for url in config.addresses])
        for number, device in enumerate(config.devices or [None]):
            own = _of_device(device) | (PICKLED if config.transport == "ipc" else {})
            processes.append(ServerProcess(arguments, folder / f"server-{number}.log", own))
        for process in processes:
            servers.append(Server(process.url, config, process, str(folder)))
    except BaseException:
        for process in processes:
            process.close()
        raise
    return Servers(servers)


def _of_device(device: int | str | None) -> dict[str, str]:
    """The environment in which a server sees one GPU, by its number among those that are seen here."""
    if not isinstance(device, int):
        return {}
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return {"CUDA_VISIBLE_DEVICES": seen[device] if seen else str(device)}


def _dealt(numbers: Sequence[int], asks: Sequence[Ask], shares: int) -> list[deque[int]]:
    """The numbers of asks by turns to so many, those of one prompt together."""
    dealt: list[deque[int]] = [deque() for _ in range(shares)]
    for turn, (_, group) in enumerate(groupby(numbers, key=lambda number: asks[number].prompt)):
        dealt[turn % shares].extend(group)
    return dealt


def _taken(asks: Sequence[Ask], share: deque[int], shares: Sequence[deque[int]]) -> Iterator[tuple[int, Ask]]:
    """Its own share, then from the end of the longest of the others."""
    while share:
        number = share.popleft()
        yield number, asks[number]
    while longest := max(shares, key=len):
        number = longest.pop()
        yield number, asks[number]
