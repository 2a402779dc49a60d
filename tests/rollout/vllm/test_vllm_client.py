"""The client of a vLLM server against servers that misbehave: each is an error of its own, none is a hang."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from posttrain import VLLMConfig
from posttrain.errors import EngineError, SetupError
from posttrain.rollout.vllm.backend import Answer, Ask
from posttrain.rollout.vllm.server import Server

ROUTES = {"/collective_rpc": {}, "/reset_prefix_cache": {}}
MODELS = {"data": [{"id": "m", "max_model_len": 64}]}
CHOICE = {"token_ids": [5, 6], "logprobs": {"token_logprobs": [-1.0, -0.5]}, "finish_reason": "stop"}
ASK = Ask([1, 2], 2, 9)
Reply = tuple[int, Any]


class Fake:
    """A server of which each route can be told what to answer."""

    def __init__(self) -> None:
        self.get: dict[str, Reply] = {"/v1/models": (200, MODELS), "/openapi.json": (200, {"paths": ROUTES})}
        self.post: dict[str, Callable[[Any], Reply]] = {
            "/v1/completions": lambda body: (200, {"choices": [CHOICE]}),
            "/collective_rpc": lambda body: (200, {}),
            "/reset_prefix_cache": lambda body: (200, {"success": True}),
        }
        self.bodies: list[Any] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(*fake.get[self.path])

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fake.bodies.append(json.loads(body) if body else None)
                self._send(*fake.post[self.path](fake.bodies[-1]))

            def _send(self, status: int, body: Any) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # the client went away in the middle, as it should

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake()
    yield server
    server.close()


def connect(fake: Fake, **options: Any) -> Server:
    config = VLLMConfig(mode="server", url=fake.url, weights_folder="w", **{"deadline": 0.5, "start_deadline": 1, **options})
    return Server(Path("."), "float32", config, cpu=True)


def test_a_completion(fake: Fake) -> None:
    server = connect(fake)
    assert server.context == 64
    assert server.submit([ASK, ASK], {"temperature": 0.5}) == [Answer((5, 6), (-1.0, -0.5), "stop")] * 2
    body = fake.bodies[0]
    assert (body["model"], body["prompt"], body["max_tokens"], body["seed"], body["temperature"]) == ("m", [1, 2], 2, 9, 0.5)
    server.rpc("reload_weights", {"weights_path": "/x"})
    assert fake.bodies[-1] == {"method": "reload_weights", "kwargs": {"weights_path": "/x"}}
    server.reset_prefix_cache()
    server.close()


def test_the_answers_keep_the_order_of_the_questions(fake: Fake) -> None:
    def slower_for_the_first(body: Any) -> Reply:
        time.sleep(0.2 / (1 + body["seed"]))
        return 200, {"choices": [{**CHOICE, "token_ids": [body["seed"], 0]}]}

    fake.post["/v1/completions"] = slower_for_the_first
    answers = connect(fake).submit([Ask([1], 2, seed) for seed in range(8)], {})
    assert [answer.tokens[0] for answer in answers] == list(range(8))


@pytest.mark.parametrize("paths", [{}, {"/collective_rpc": {}}])
def test_a_server_without_control_routes_is_refused(fake: Fake, paths: Any) -> None:
    fake.get["/openapi.json"] = (200, {"paths": paths})
    with pytest.raises(SetupError, match=r"reset_prefix_cache: start it with VLLM_SERVER_DEV_MODE=1"):
        connect(fake)


@pytest.mark.parametrize("reply", [(503, {}), (200, {"data": []}), (200, b"<html>"), (200, {"data": [{}]}), (200, [])])
def test_what_is_no_vllm_server_is_said(fake: Fake, reply: Reply) -> None:
    fake.get["/v1/models"] = reply
    with pytest.raises(EngineError, match="cannot be used"):
        connect(fake)


def test_nobody_there() -> None:
    server = Fake()
    server.close()
    with pytest.raises(EngineError, match="cannot be used"):
        connect(server)


@pytest.mark.parametrize(
    "reply",
    [
        (500, {"error": "out of memory"}),
        (200, b"not json"),
        (200, {}),
        (200, {"choices": []}),
        (200, {"choices": [{**CHOICE, "logprobs": None}]}),
        (200, {"choices": [{**CHOICE, "token_ids": None}]}),
        (200, {"choices": [{**CHOICE, "logprobs": {"token_logprobs": [None]}}]}),
    ],
)
def test_a_reply_that_is_no_completion_is_an_error(fake: Fake, reply: Reply) -> None:
    server = connect(fake)
    fake.post["/v1/completions"] = lambda body: reply
    with pytest.raises(EngineError, match=rf"gave no completion \({reply[0]}\)"):
        server.submit([ASK] * 3, {})


def test_a_silent_server_hangs_and_is_found_by_a_token(fake: Fake) -> None:
    server = connect(fake)
    fake.post["/v1/completions"] = lambda body: (time.sleep(5), (200, {}))[1]
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"hangs: no completion, and not one token in 0\.5 s"):
        server.submit([ASK], {})
    assert time.monotonic() - started < 3


def test_a_slow_server_that_still_answers_one_token_does_not_hang(fake: Fake) -> None:
    def slow_unless_asked_for_one(body: Any) -> Reply:
        if body["max_tokens"] > 1:
            time.sleep(1.6)
        return 200, {"choices": [CHOICE]}

    fake.post["/v1/completions"] = slow_unless_asked_for_one
    assert len(connect(fake, max_num_seqs=3).submit([ASK] * 2, {})) == 2
    assert sum(body["max_tokens"] == 1 for body in fake.bodies) >= 2


def test_completions_that_come_in_are_a_sign_of_life_while_the_token_waits(fake: Fake) -> None:
    """A full server answers in turn: the token stands at the end of the queue."""

    def in_turn(body: Any) -> Reply:
        time.sleep(2.2 if body["max_tokens"] == 1 else 0.7 + 0.3 * body["seed"])
        return 200, {"choices": [CHOICE]}

    fake.post["/v1/completions"] = in_turn
    assert len(connect(fake).submit([Ask([1], 2, seed) for seed in range(5)], {})) == 5


def test_it_works_within_an_event_loop_of_the_callers(fake: Fake) -> None:
    server = connect(fake)

    async def notebook() -> list[Answer]:
        return server.submit([ASK], {})

    assert asyncio.run(notebook()) == [Answer((5, 6), (-1.0, -0.5), "stop")]


@pytest.mark.parametrize("status", [404, 500])
def test_a_control_call_that_is_refused_is_an_error(fake: Fake, status: int) -> None:
    server = connect(fake)
    fake.post["/collective_rpc"] = lambda body: (status, {"detail": "no such method"})
    with pytest.raises(EngineError, match=f"refuses /collective_rpc \\({status}\\).*no such method"):
        server.rpc("reload_weights", {})


def test_a_control_call_that_takes_too_long_is_a_hang(fake: Fake) -> None:
    server = connect(fake)
    fake.post["/collective_rpc"] = lambda body: (time.sleep(5), (200, {}))[1]
    with pytest.raises(EngineError, match=r"hangs: /collective_rpc took over 0\.5 s"):
        server.rpc("reload_weights", {})


def test_a_cache_that_was_not_reset_is_an_error(fake: Fake) -> None:
    server = connect(fake)
    fake.post["/reset_prefix_cache"] = lambda body: (200, {"success": False})
    with pytest.raises(EngineError, match="did not reset its prefix cache"):
        server.reset_prefix_cache()


def test_a_connection_that_breaks_is_asked_again_with_the_same_seed(fake: Fake) -> None:
    breaks = 2

    def broken(body: Any) -> Reply:
        nonlocal breaks
        breaks -= 1
        if breaks >= 0:
            raise ConnectionAbortedError
        return 200, {"choices": [CHOICE]}

    fake.post["/v1/completions"] = broken
    assert connect(fake, deadline=5).submit([ASK], {}) == [Answer((5, 6), (-1.0, -0.5), "stop")]
    assert [body["seed"] for body in fake.bodies] == [ASK.seed] * 3


def test_a_server_that_breaks_every_connection_is_lost(fake: Fake) -> None:
    def broken(body: Any) -> Reply:
        raise ConnectionAbortedError

    fake.post["/v1/completions"] = broken
    with pytest.raises(EngineError, match="is lost"):
        connect(fake, deadline=5).submit([ASK], {})


def test_a_server_that_goes_away_is_lost(fake: Fake) -> None:
    server = connect(fake, deadline=5)
    fake.close()
    with pytest.raises(EngineError, match="is lost"):
        server.submit([ASK], {})
    with pytest.raises(EngineError, match="is lost"):
        server.rpc("reload_weights", {})
