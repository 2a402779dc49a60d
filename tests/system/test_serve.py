"""`posttrain serve`: a server answers, by either engine, what the model answers without it, and ends when it is told to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from ground.catalogue import MODEL
from recipes import recipe
from system.processes import environment

pytestmark = pytest.mark.system
PATIENCE = 240.0  # seconds for a server to start on a busy machine


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    before = Path.cwd()
    os.chdir(folder)
    try:
        recipe(training={"max_steps": 3, "rows_per_step": 4, "learning_rate": 0.01})
    finally:
        os.chdir(before)
    posttrain(folder, "run", "recipe.yaml")
    return folder / "out"


def posttrain(folder: Path, *arguments: str) -> str:
    words = [sys.executable, "-m", "posttrain", *arguments]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("engine", ["vllm", "hf"])
def test_a_served_model_answers_as_it_does_without_a_server(
    engine: str, run: Path, real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """A run by vLLM; by transformers a real model, for it takes tokenizers from scratch for another kind."""
    what, name = ("out", "out") if engine == "vllm" else (str(real_model(MODEL)),) * 2
    question, limits = "What is 1 + 1?", ["--temperature", "0", "--max-tokens", "6"]
    alone = json.loads(posttrain(run.parent, "generate", what, "--prompt", question, *limits))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = [sys.executable, "-m", "posttrain", "serve", what, "--engine", engine, "--port", str(port)]
    settings = environment(VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1")
    log = tmp_path / "log"
    with log.open("w") as file:
        server = subprocess.Popen(words, cwd=run.parent, stdout=file, stderr=file, env=settings)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        asked = {"model": name, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 6}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=asked, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == alone["completion"]
    finally:
        server.terminate()
        server.wait(timeout=60)


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.3)
    raise AssertionError(log.read_text())
