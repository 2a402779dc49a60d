"""What a model is, compared when a run goes on: a digest of its weights, its config, and the commit of a hub name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

PASSING = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")
"""Of a config: what says nothing of the model, or changes with versions."""


def identity(model: Any) -> dict[str, Any]:
    """Of a model as it was loaded, to be written as JSON."""
    digest, held = hashlib.sha256(), set[str]()
    for name, tensor in model.state_dict().items():
        held.add(str(tensor.dtype).removeprefix("torch."))
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    config = {key: value for key, value in model.config.to_dict().items() if key not in PASSING}
    return {
        "weights": digest.hexdigest(),
        "held": sorted(held),
        "revision": getattr(model.config, "_commit_hash", None),
        "config": json.loads(json.dumps(config, default=str)),
    }


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What is another model's, in words, or None. A key that only one version of transformers writes is none."""
    then, here = before["config"], now["config"]
    changed = [key for key in sorted(then.keys() & here.keys()) if then[key] != here[key]]
    if changed:
        return "its config says " + "; ".join(f"{key}: {then[key]} then, {here[key]} now" for key in changed[:3])
    if before["weights"] != now["weights"] and "held" not in before and "bfloat16" not in now["held"]:
        return (
            "its weights are others, or it was begun when model.dtype: bfloat16 meant that bfloat16 numbers were trained, "
            "which are float32 now"
        )
    if before["weights"] != now["weights"]:
        moved = before["revision"] != now["revision"]
        return "its weights are others" + (f" (commit {before['revision']} then, {now['revision']} now)" if moved else "")
    return None
