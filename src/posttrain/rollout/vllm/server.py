"""vLLM as a server: started on the loopback and ended with the run, or one that runs already."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from posttrain.errors import EngineError, SetupError
from posttrain.rollout.vllm.backend import Answer, Ask, engine_arguments
from posttrain.settings.rollout import VLLMConfig

LOG_LINES = 15  # of the server's output, quoted where it fails
ENDS_WITHIN = 10.0  # seconds for a server to end by itself
PR_SET_PDEATHSIG = 1  # of prctl(2)
ATTEMPTS = 4  # of a completion whose connection breaks: its seed makes them one and the same
IDLE = 1.0  # seconds for which an idle connection is used again: fewer than a server keeps it, which drops it without a word


class Server:
    """A `Backend` over HTTP. Every call has a deadline; that a port is open proves nothing.

    While completions are pending and none arrives for `config.deadline` seconds, one token is asked for, with a place kept
    free for it: when neither it nor a completion comes within another deadline, the engine hangs.

    Raises:
        SetupError: there is no vLLM, or the server that is there cannot be controlled.
        EngineError: it does not start or answer.
    """

    def __init__(self, folder: Path, dtype: str, config: VLLMConfig, *, cpu: bool) -> None:
        self._deadline, self._places = config.deadline, config.max_num_seqs - 1
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "server.log"
        self.url = config.url.rstrip("/") if config.url is not None else self._start(folder, dtype, config, cpu=cpu)
        try:
            self._model, self.context = self._wait_for_models(config.start_deadline, folder)
            if config.url is not None:
                self._check_control()
        except BaseException:
            self.close()
            raise

    def submit(self, asks: Sequence[Ask], options: dict[str, Any]) -> list[Answer]:
        """See `Backend`."""
        with ThreadPoolExecutor(1) as thread:  # the caller may run an event loop of its own
            return thread.submit(asyncio.run, self._submit(asks, options)).result()

    def rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        """See `Backend`."""
        self._post("/collective_rpc", {"method": method, "kwargs": kwargs})

    def reset_prefix_cache(self) -> None:
        """See `Backend`."""
        reply = self._post("/reset_prefix_cache", None)
        if reply.content and reply.json().get("success") is False:
            raise EngineError("vLLM did not reset its prefix cache: completions would come of old weights.")

    def close(self) -> None:
        """Ends the server that was started, and all processes of its group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGCONT)  # a stopped one cannot end
                os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDS_WITHIN)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _start(self, folder: Path, dtype: str, config: VLLMConfig, *, cpu: bool) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
        for name, value in engine_arguments(config, folder, dtype, cpu=cpu).items():
            flag = name.replace("_", "-")
            command += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
        defaults = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600"}
        environment = {**defaults, **os.environ, "VLLM_SERVER_DEV_MODE": "1"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        return f"http://127.0.0.1:{port}"

    def _wait_for_models(self, seconds: float, folder: Path) -> tuple[str, int]:
        end = time.monotonic() + seconds
        while True:
            try:
                reply = self._client().get("/v1/models")
                if reply.status_code == httpx.codes.OK and reply.json()["data"]:
                    model = reply.json()["data"][0]
                    if self._process is None or model["id"] == str(folder):
                        return model["id"], int(model["max_model_len"])
                    raise EngineError(f"Another server, of {model['id']}, took {self.url} before ours.")
                fault = f"/v1/models answers {reply.status_code}"
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                fault = f"{type(error).__name__}: {error}"
            if self._has_ended():
                raise EngineError(f"The vLLM server did not start. {self._tail()}")
            if time.monotonic() > end or self._process is None:
                raise EngineError(f"The vLLM server at {self.url} cannot be used: {fault}. {self._tail()}")
            time.sleep(0.5)

    def _check_control(self) -> None:
        reply = self._client().get("/openapi.json")
        paths = reply.json().get("paths", {}) if reply.status_code == httpx.codes.OK else {}
        missing = [path for path in ("/collective_rpc", "/reset_prefix_cache") if path not in paths]
        if missing:
            raise SetupError(
                f"The vLLM server at {self.url} has no {' and '.join(missing)}: start it with VLLM_SERVER_DEV_MODE=1, on an "
                "address that nobody else reaches."
            )

    async def _submit(self, asks: Sequence[Ask], options: dict[str, Any]) -> list[Answer]:
        places = asyncio.Semaphore(self._places)
        size = self._places + 1
        limits = httpx.Limits(max_connections=size, max_keepalive_connections=size, keepalive_expiry=IDLE)
        timeout = httpx.Timeout(None, connect=self._deadline)  # a long answer is no fault; a silent engine is found below
        async with httpx.AsyncClient(base_url=self.url, limits=limits, timeout=timeout, trust_env=False) as client:

            async def one(ask: Ask) -> Answer:
                async with places:
                    return await self._completion(client, ask, options)

            tasks = [asyncio.create_task(one(ask)) for ask in asks]
            token: asyncio.Task[Answer] | None = None
            try:
                pending = set(tasks)
                while pending:
                    watched = pending if token is None else {*pending, token}
                    done, _ = await asyncio.wait(watched, timeout=self._deadline, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                    if not done and token is not None:
                        raise EngineError(
                            f"The vLLM server at {self.url} hangs: no completion, and not one token in "
                            f"{self._deadline:g} s. The last checkpoint is whole. {self._tail()}"
                        )
                    if not done:
                        token = asyncio.create_task(self._completion(client, Ask([0], 1, 0), {"logprobs": 0}))
                    elif token in done:
                        token = None
                    pending -= done
                return [task.result() for task in tasks]
            finally:
                begun = [*tasks, *([token] if token is not None else [])]
                for task in begun:
                    task.cancel()
                await asyncio.gather(*begun, return_exceptions=True)

    async def _completion(self, client: httpx.AsyncClient, ask: Ask, options: dict[str, Any]) -> Answer:
        body = {
            "model": self._model,
            "prompt": ask.prompt,
            "max_tokens": ask.max_tokens,
            "seed": ask.seed,
            "return_token_ids": True,
            **options,
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

    def _post(self, path: str, body: Any) -> httpx.Response:
        try:
            reply = self._client().post(path, json=body)
        except httpx.TimeoutException:
            raise EngineError(
                f"The vLLM server at {self.url} hangs: {path} took over {self._deadline:g} s. {self._tail()}"
            ) from None
        except httpx.HTTPError as error:
            raise EngineError(self._lost(error)) from error
        if reply.is_error:
            raise EngineError(f"The vLLM server at {self.url} refuses {path} ({reply.status_code}): {reply.text[:500]}")
        return reply

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=self._deadline, trust_env=False)

    def _lost(self, error: Exception) -> str:
        ended = f" It ended with {self._process.returncode}." if self._process is not None and self._has_ended() else ""
        return f"The vLLM server at {self.url} is lost ({type(error).__name__}: {error}).{ended} {self._tail()}"

    def _has_ended(self) -> bool:
        if self._process is None:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)  # a connection breaks a moment before its process is gone
        return self._process.returncode is not None

    def _tail(self) -> str:
        if self._process is None:
            return ""
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "Its last words:\n" + "\n".join(lines) if lines else ""


def _end_with_parent() -> None:
    """The kernel ends the server when the trainer is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
