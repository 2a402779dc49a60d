"""Starts a vLLM server, prints its process group, and waits to be killed. Started by test_vllm.py."""

from __future__ import annotations

import time
from typing import Any

from posttrain import VLLMConfig, VLLMEngine
from tiny import make_model

if __name__ == "__main__":
    model, tokenizer = make_model(dtype="float32")
    engine = VLLMEngine(model, tokenizer, VLLMConfig(mode="server"))
    backend: Any = engine._backend
    print(backend._process.pid, flush=True)
    time.sleep(600)
