"""The command that serves a model by an OpenAI interface: vLLM's own server, or transformers'."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

from posttrain.errors import RecipeError, SetupError
from posttrain.execution.use.chosen import Chosen
from posttrain.settings.adapters.kinds import changes_base
from posttrain.settings.adapters.quantization import NOTE

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""That vLLM has room for."""


def command(chosen: Chosen, engine: str | None, *, host: str, port: int, options: list[str]) -> list[str]:
    """The words of the command.

    Args:
        chosen: the model.
        engine: vllm or hf; vllm where it is installed, if not given.
        host: that it listens at.
        port: that it listens at.
        options: more of the server's own.

    Raises:
        RecipeError: the engine is none of these.
        SetupError: it is not installed; or it cannot serve an adapter that does not name its base.
    """
    if engine not in (None, "vllm", "hf"):
        raise RecipeError(f"--engine {engine}: vllm or hf is expected.")
    there = importlib.util.find_spec("vllm") is not None
    if engine == "vllm" and not there:
        raise SetupError("serve --engine vllm: vLLM is not installed. pip install 'posttrain[vllm]', or --engine hf.")
    if engine == "vllm" or (engine is None and there):
        return [*_vllm(chosen), "--host", host, "--port", str(port), *options]
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
        raise SetupError("serve --engine hf: transformers' server is not installed. pip install 'transformers[serving]'.")
    if chosen.is_adapter:
        raise SetupError(f"serve --engine hf: {chosen.place} is an adapter. Merge it: posttrain merge; or --engine vllm.")
    transformers = [sys.executable, "-m", "transformers.cli.transformers"]
    return [*transformers, "serve", chosen.place, "--host", host, "--port", str(port), *options]


def _unserved(described: Any) -> str | None:
    """What vLLM, which has LoRA added in each pass, cannot serve of an adapter."""
    kind = str(described.get("peft_type", "LORA")).lower()
    if kind != "lora":
        return f"is an adapter of kind {kind}, and vLLM serves LoRA"
    if changes_base(described.get("init_lora_weights")):
        return f"was begun with {described['init_lora_weights']}, which has changed its base: vLLM would serve another one"
    more = [one for one in ("use_dora", "modules_to_save", "trainable_token_indices") if described.get(one)]
    return f"is LoRA with {more[0]}, which vLLM does not serve" if more else None


def _vllm(chosen: Chosen) -> list[str]:
    import torch

    name = Path(chosen.place).name if chosen.run is None else chosen.run.resolve().name
    server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    plain = [] if torch.cuda.is_available() else ["--enforce-eager"]
    if not chosen.is_adapter:
        return [*server, "--model", chosen.place, "--served-model-name", name, *plain]
    try:
        described = json.loads((Path(chosen.place) / "adapter_config.json").read_text())
        if (Path(chosen.place) / NOTE).is_file():
            raise SetupError(
                f"serve --engine vllm: {chosen.place} was trained over a base of few bits, and vLLM would serve another one. "
                "Merge it: posttrain merge."
            )
        if (fault := _unserved(described)) is not None:
            raise SetupError(f"serve --engine vllm: {chosen.place} {fault}. Merge it: posttrain merge.")
        base, rank = described.get("base_model_name_or_path"), int(described.get("r", 8))
    except (ValueError, AttributeError, TypeError, OSError) as error:
        raise SetupError(f"{chosen.place}/adapter_config.json cannot be read: {error}") from None
    if not base:
        raise SetupError(f"{chosen.place} does not say of which model it is (base_model_name_or_path). Merge it first.")
    served = str(next((one for one in RANKS if one >= rank), rank))
    lora = ["--enable-lora", "--max-lora-rank", served, "--lora-modules", f"{name}={chosen.place}"]
    return [*server, "--model", base, *lora, *plain]
