"""The client of one vLLM server. Every call has a deadline; that a port is open proves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import httpx

from posttrain.errors import EngineError, SetupError
from posttrain.rollout.vllm.backend import Answer, Ask
from posttrain.rollout.vllm.process import ServerProcess
from posttrain.settings.rollout import VLLMConfig

ATTEMPTS = 4  # of a completion whose connection breaks: its seed makes them one and the same
IDLE = 1.0  # seconds for which an idle connection is used again: fewer than a server keeps it, which drops it without a word


class Server:
    """A server that runs, or that is starting as `process`, which is then ended with it.

    While completions are pending and none arrives for `config.deadline` seconds, one token is asked for, with a place kept
    free for it: when neither it nor a completion comes within another deadline, the server hangs.

    Args:
        url: where it listens.
        config: its deadlines and places.
        process: whose server it is, if it was started here.
        model: the name that it must give its model, if that is known.
        controlled: it is to take weights; what only scores rows is told nothing.

    Raises:
        SetupError: the server that is there has several models, or cannot be controlled.
        EngineError: it does not start or answer.
    """

    def __init__(
        self,
        url: str,
        config: VLLMConfig,
        process: ServerProcess | None = None,
        model: str | None = None,
        *,
        controlled: bool = True,
    ) -> None:
        self.url, self._process = url.rstrip("/"), process
        self._deadline, self._places = config.deadline, config.max_num_seqs - 1
        self.model, self.context = self._wait_for_models(config.start_deadline, model)
        if process is None and controlled:
            self._check_control(config)

    @property
    def pid(self) -> int | None:
        """The process group of a server that was started here."""
        return self._process.pid if self._process is not None else None

    async def answer(
        self, asks: Iterator[tuple[int, Ask]], options: dict[str, Any], answers: dict[int, Answer], at_most: int
    ) -> None:
        """Takes asks, as many at a time as it has places and at most so many, and puts each answer under the ask's number.

        Raises:
            EngineError: it failed or hangs; what it has answered before is there.
        """
        size = min(self._places, at_most) + 1
        limits = httpx.Limits(max_connections=size, max_keepalive_connections=size, keepalive_expiry=IDLE)
        timeout = httpx.Timeout(None, connect=self._deadline)  # a long answer is no fault; a silent engine is found below
        begun: dict[asyncio.Task[Answer], int] = {}
        token: asyncio.Task[Answer] | None = None
        async with httpx.AsyncClient(
            base_url=self.url, limits=limits, timeout=timeout, trust_env=False, verify=_certificates()
        ) as client:
            try:
                while True:
                    while len(begun) < size - 1 and (taken := next(asks, None)) is not None:
                        begun[asyncio.create_task(self._completion(client, taken[1], options))] = taken[0]
                    if not begun:
                        return
                    watched = begun.keys() if token is None else {*begun, token}
                    done, _ = await asyncio.wait(watched, timeout=self._deadline, return_when=asyncio.FIRST_COMPLETED)
                    if not done and token is not None:
                        raise EngineError(
                            f"The vLLM server at {self.url} hangs: no completion, and not one token in "
                            f"{self._deadline:g} s. The last checkpoint is whole."
                        )
                    if not done:
                        token = asyncio.create_task(self._completion(client, Ask([0], 1, 0), {"logprobs": 0}))
                    answers |= {begun[task]: task.result() for task in done & begun.keys() if task.exception() is None}
                    for task in done:
                        task.result()
                        begun.pop(task, None)
                    token = None if token in done else token
            finally:
                left = [*begun, *([token] if token is not None else [])]
                for task in left:
                    task.cancel()
                await asyncio.gather(*left, return_exceptions=True)

    async def logprobs(self, rows: Sequence[list[int]]) -> list[list[float]]:
        """Of each token of some rows but the first, at temperature 1; as many rows at a time as it has places.

        Raises:
            EngineError: it failed, or gave something else.
        """
        places = asyncio.Semaphore(self._places)
        limits = httpx.Limits(max_connections=self._places, keepalive_expiry=IDLE)
        timeout = httpx.Timeout(self._deadline, pool=None)
        async with httpx.AsyncClient(
            base_url=self.url, limits=limits, timeout=timeout, trust_env=False, verify=_certificates()
        ) as client:

            async def scored(row: list[int]) -> list[float]:
                body = {"model": self.model, "prompt": row, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
                async with places:
                    reply = await self._post_again(client, "/v1/completions", body)
                try:
                    _, *each = reply.raise_for_status().json()["choices"][0]["prompt_logprobs"]
                    made = [float(of[str(token)]["logprob"]) for token, of in zip(row[1:], each, strict=True)]
                    if not all(logprob <= 0 for logprob in made):
                        raise ValueError("they are no log-probs")
                    return made
                except (httpx.HTTPStatusError, ValueError, KeyError, TypeError, IndexError) as error:
                    raise EngineError(
                        f"The vLLM server at {self.url} gave no log-probs of a row of {len(row)} tokens "
                        f"({reply.status_code}): {reply.text[:300]}"
                    ) from error

            return await asyncio.gather(*map(scored, rows))

    def post(self, path: str, body: Any) -> httpx.Response:
        """What a route answers.

        Raises:
            EngineError: it refuses, is lost, or hangs.
        """
        try:
            reply = self._client().post(path, json=body)
        except httpx.TimeoutException:
            raise EngineError(f"The vLLM server at {self.url} hangs: {path} took over {self._deadline:g} s.") from None
        except httpx.HTTPError as error:
            raise EngineError(self._lost(error)) from error
        if reply.is_error:
            raise EngineError(f"The vLLM server at {self.url} refuses {path} ({reply.status_code}): {reply.text[:500]}")
        return reply

    def get(self, path: str) -> Any:
        """What a route tells, or an EngineError."""
        try:
            reply = self._client().get(path)
            return reply.raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise EngineError(self._lost(error)) from error

    def rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        """Calls a method of every worker."""
        self.post("/collective_rpc", {"method": method, "kwargs": kwargs})

    def reset_prefix_cache(self) -> None:
        """Forgets what was computed with earlier weights."""
        reply = self.post("/reset_prefix_cache", None)
        if reply.content and reply.json().get("success") is False:
            raise EngineError(
                f"The vLLM server at {self.url} did not reset its prefix cache: completions would come of old weights."
            )

    def last_words(self) -> str:
        """Of the process that was started here."""
        return self._process.last_words() if self._process is not None else ""

    def close(self) -> None:
        """Ends the process that was started here."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _wait_for_models(self, seconds: float, name: str | None) -> tuple[str, int]:
        end = time.monotonic() + seconds
        while True:
            try:
                reply = self._client().get("/v1/models")
                if reply.status_code == httpx.codes.OK and (there := reply.json()["data"]):
                    _check_one(self.url, there)
                    model = there[0]
                    if name in (None, model["id"]):
                        return model["id"], int(model["max_model_len"])
                    raise EngineError(f"Another server, of {model['id']}, took {self.url} before ours.")
                fault = f"/v1/models answers {reply.status_code}"
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                fault = f"{type(error).__name__}: {error}"
            if self._process is not None and self._process.ended() is not None:
                raise EngineError(f"The vLLM server did not start. {self.last_words()}")
            if time.monotonic() > end or self._process is None:
                raise EngineError(f"The vLLM server at {self.url} cannot be used: {fault}. {self.last_words()}")
            time.sleep(0.5)

    def _check_control(self, config: VLLMConfig) -> None:
        reply = self._client().get("/openapi.json")
        paths = reply.json().get("paths", {}) if reply.status_code == httpx.codes.OK else {}
        missing = [path for path in ("/collective_rpc", "/reset_prefix_cache") if path not in paths]
        if missing:
            raise SetupError(
                f"The vLLM server at {self.url} has no {' and '.join(missing)}: start it with VLLM_SERVER_DEV_MODE=1, on an "
                "address that nobody else reaches."
            )
        if not config.transfers:
            return
        served = self.get("/server_info?config_format=json")["vllm_config"]
        if (served.get("weight_transfer_config") or {}).get("backend") != config.transport:
            raise SetupError(
                f"The vLLM server at {self.url} does not take weights: {config.transport}: start it, of vLLM 0.28 or later, "
                f'with --weight-transfer-config \'{{"backend": "{config.transport}"}}\'.'
            )

    async def _completion(self, client: httpx.AsyncClient, ask: Ask, options: dict[str, Any]) -> Answer:
        body = {
            "model": self.model,
            "prompt": ask.prompt,
            "return_token_ids": True,
            **ask.options(options),
        }
        reply = await self._post_again(client, "/v1/completions", body)
        try:
            reply.raise_for_status()
            choice = reply.json()["choices"][0]
            logprobs = tuple(map(float, choice["logprobs"]["token_logprobs"]))
            return Answer(tuple(choice["token_ids"]), logprobs, "length" if choice["finish_reason"] == "length" else "stop")
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError, IndexError) as error:
            raise EngineError(
                f"The vLLM server at {self.url} gave no completion ({reply.status_code}): {reply.text[:300]}"
            ) from error

    async def _post_again(self, client: httpx.AsyncClient, path: str, body: Any) -> httpx.Response:
        for attempt in range(1, ATTEMPTS):
            with contextlib.suppress(httpx.TransportError):
                return await client.post(path, json=body)
            await asyncio.sleep(0.1 * 2**attempt)
        try:
            return await client.post(path, json=body)
        except httpx.HTTPError as error:
            raise EngineError(self._lost(error)) from error

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=self._deadline, trust_env=False, verify=_certificates())

    def _lost(self, error: Exception) -> str:
        status = self._process.ended() if self._process is not None else None
        ended = f" It ended with {status}." if status is not None else ""
        return f"The vLLM server at {self.url} is lost ({type(error).__name__}: {error}).{ended}"


def _check_one(url: str, models: Sequence[Any]) -> None:
    if len({one.get("root") or one["id"] for one in models}) > 1:  # one model may have several names
        raise SetupError(
            f"The vLLM server at {url} has several models, {', '.join(one['id'] for one in models)}, and nothing says which "
            "of them is meant: start one that serves one model, without adapters beside it."
        )


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()  # httpx would read them anew for every client
