"""The client of a vLLM server against servers that misbehave: each is an error of its own, none is a hang."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from posttrain import VLLMConfig
from posttrain.errors import EngineError, SetupError
from posttrain.rollout.vllm.backend import Answer, Ask
from posttrain.rollout.vllm.server import Server
from posttrain.rollout.vllm.servers import Servers
from posttrain.telling import hearing

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


def connect(*fakes: Fake, **options: Any) -> Servers:
    urls = [fake.url for fake in fakes]
    config = VLLMConfig(mode="server", urls=urls, weights_folder="w", **{"deadline": 0.5, "start_deadline": 10, **options})
    return Servers([Server(url, config) for url in urls])


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


def test_a_server_with_an_adapter_beside_its_model_is_refused(fake: Fake) -> None:
    """Which of them completions come from would hang on the order in which it names them."""
    fake.get["/v1/models"] = (200, {"data": [*MODELS["data"], {"id": "tuned", "root": "adapter", "parent": "m"}]})
    with pytest.raises(SetupError, match="has several models, m, tuned, and nothing says which"):
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


def cut_off(body: Any) -> Reply:
    raise ConnectionAbortedError


@pytest.fixture
def other() -> Iterator[Fake]:
    server = Fake()
    yield server
    server.close()


def by_seed(body: Any) -> Reply:
    return 200, {"choices": [{**CHOICE, "token_ids": [body["seed"], 0]}]}


def completions(fake: Fake) -> list[int]:
    return [body["seed"] for body in fake.bodies if body is not None and "seed" in body]


def test_questions_are_dealt_to_several_servers_and_the_answers_keep_their_order(fake: Fake, other: Fake) -> None:
    fake.post["/v1/completions"] = other.post["/v1/completions"] = by_seed
    answers = connect(fake, other).submit([Ask([1 + i // 4], 2, i) for i in range(16)], {})
    assert [answer.tokens[0] for answer in answers] == list(range(16))
    assert sorted(completions(fake)) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert sorted(completions(other)) == [4, 5, 6, 7, 12, 13, 14, 15]


def test_a_server_that_is_done_takes_over_what_another_has_not_begun(fake: Fake, other: Fake) -> None:
    other.post["/v1/completions"] = by_seed
    fake.post["/v1/completions"] = lambda body: (time.sleep(0.3), by_seed(body))[1]
    answers = connect(fake, other, max_num_seqs=2, deadline=5).submit([Ask([1 + i // 4], 2, i) for i in range(16)], {})
    assert [answer.tokens[0] for answer in answers] == list(range(16))
    assert len(completions(other)) > 8 and len(completions(fake)) + len(completions(other)) == 16


@pytest.mark.parametrize("how", ["breaks", "no completion", "hangs"])
def test_a_server_that_fails_is_taken_out_and_the_others_are_asked_with_the_same_seeds(
    fake: Fake, other: Fake, how: str
) -> None:
    faults = {
        "breaks": cut_off,
        "no completion": lambda body: (500, {"error": "out of memory"}),
        "hangs": lambda body: (time.sleep(5), (200, {}))[1],
    }
    answered, failing = list[int](), threading.Event()

    def fails_after_two(body: Any) -> Reply:
        answered.append(body["seed"])
        if len(answered) <= 2:
            return by_seed(body)
        failing.set()
        return faults[how](body)

    fake.post["/v1/completions"] = fails_after_two
    other.post["/v1/completions"] = lambda body: (failing.wait(5), by_seed(body))[1]  # or it might take all that is left
    servers = connect(fake, other, max_num_seqs=2, deadline=1.5 if how == "hangs" else 5)  # one by one: what is read is known
    asks = [Ask([1 + i // 2], 2, i) for i in range(12)]
    with hearing() as heard:
        answers = servers.submit(asks, {})
    assert [answer.tokens[0] for answer in answers] == list(range(12))
    assert set(answered[:2]).isdisjoint(completions(other)), "what was answered is not asked again"
    assert [told.rule for told in heard] == ["engine-lost"] and fake.url in heard[0].sentence
    assert servers.names == [other.url]
    seen = len(fake.bodies)
    assert len(servers.submit(asks, {})) == 12 and len(fake.bodies) == seen
    other.post["/v1/completions"] = cut_off
    with pytest.raises(EngineError, match=f"{other.url} (is lost|hangs)"):
        servers.submit(asks, {})


def test_each_server_is_asked_and_one_that_does_not_do_as_it_is_told_is_taken_out(fake: Fake, other: Fake) -> None:
    fake.post["/v1/completions"] = other.post["/v1/completions"] = by_seed
    servers = connect(fake, other)
    assert {name: answer.tokens for name, answer in servers.each(Ask([1], 2, 5), {}).items()} == {
        fake.url: (5, 0),
        other.url: (5, 0),
    }
    servers.rpc("reload_weights", {"weights_path": "/x"})
    assert fake.bodies[-1] == other.bodies[-1] == {"method": "reload_weights", "kwargs": {"weights_path": "/x"}}
    other.post["/reset_prefix_cache"] = lambda body: (200, {"success": False})
    with hearing() as heard:
        servers.reset_prefix_cache()
    assert servers.names == [fake.url] and "did not reset its prefix cache" in heard[0].sentence


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "http://127.0.0.1:1", "urls": ["http://127.0.0.1:2"]}, "give one of them"),
        ({"urls": ["http://127.0.0.1:1", "http://127.0.0.1:1/"]}, "stands there twice"),
        ({"urls": ["127.0.0.1:1"]}, "http://HOST:PORT is expected"),
        ({"urls": ["http://127.0.0.1:1"], "devices": [0]}, "devices are of servers that the run starts"),
        ({"devices": [0, "cpu"]}, "not both"),
        ({"devices": [1, 1]}, "each once"),
        ({"devices": [0, 1], "tensor_parallel_size": 2}, "one server for each"),
    ],
)
def test_servers_that_cannot_be_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        VLLMConfig(mode="server", weights_folder="w", **options)
