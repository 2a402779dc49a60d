"""A server with the routes of vLLM that are used, over a model of transformers: it samples for real, a token at a time."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

ROUTES = {"/collective_rpc": {}, "/reset_prefix_cache": {}}


@torch.no_grad()
def sample(
    model: Any, prompt: Sequence[int], *, seed: int, max_tokens: int, temperature: float, ends: Sequence[int]
) -> tuple[list[int], list[float], str]:
    """Tokens, their log-probs and why they end: each is read off the cumulated distribution by a uniform number."""
    uniforms = np.random.Generator(np.random.Philox(key=seed)).random(max_tokens)
    tokens, logprobs = list[int](), list[float]()
    for uniform in uniforms:
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, -1].float()
        log_p = (logits / temperature).log_softmax(-1)
        tokens.append(min(int((log_p.double().exp().cumsum(0) < uniform).sum()), len(log_p) - 1))
        logprobs.append(float(log_p[tokens[-1]]))
        if tokens[-1] in ends:
            return tokens, logprobs, "stop"
    return tokens, logprobs, "length"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # who asked was killed
            super().handle_error(request, client_address)


class StandIn:
    """Serves a model, which gets the weights of a folder on `reload_weights`: `loaded` has the folders' names. Weights whose
    names have `leaves_out` in them do not arrive.
    """

    def __init__(self, model: Any, context: int) -> None:
        self.loaded: list[str] = []
        self.leaves_out: str | None = None
        self.delay = 0.0
        """Seconds before the next answer."""
        lock, stand_in = threading.Lock(), self

        def completion(body: Any) -> Any:
            with lock:
                delay, stand_in.delay = stand_in.delay, 0.0
                time.sleep(delay)
                ends = [] if body.get("ignore_eos") else body.get("stop_token_ids", [])
                options = {name: body[name] for name in ("seed", "max_tokens")}
                tokens, logprobs, finish = sample(
                    model, body["prompt"], temperature=body["temperature"], ends=ends, **options
                )
            return {"choices": [{"token_ids": tokens, "logprobs": {"token_logprobs": logprobs}, "finish_reason": finish}]}

        def rpc(body: Any) -> Any:
            assert body["method"] == "reload_weights"
            folder = Path(body["kwargs"]["weights_path"])
            with lock:
                weights = {name: t for path in folder.glob("*.safetensors") for name, t in load_file(path).items()}
                lost = stand_in.leaves_out
                model.load_state_dict(
                    {n: t for n, t in weights.items() if lost is None or lost not in n}, strict=lost is None
                )
                stand_in.loaded.append(folder.name)
            return {}

        answers = {"/v1/completions": completion, "/collective_rpc": rpc, "/reset_prefix_cache": lambda _: {"success": True}}
        found = {"/v1/models": {"data": [{"id": "m", "max_model_len": context}]}, "/openapi.json": {"paths": ROUTES}}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(found[self.path])

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._send(answers[self.path](json.loads(body) if body else None))

            def _send(self, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
