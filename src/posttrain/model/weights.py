"""Every tensor of a model, whole, under its name in a plain checkpoint; and the files that such tensors make."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from posttrain.distributed.sharding import gathered_parameters, shape, size, whole
from posttrain.errors import SetupError

BUCKET_BYTES = 2**29  # gathered at a time from the ranks that share a model
SHARD_BYTES = 4 * 2**30  # of a safetensors file; only one is held beside the model
Weights = Iterator[tuple[str, Tensor]]


@torch.no_grad()
def engine_weights(model: Any, dtype: torch.dtype | None = None) -> Weights:
    """Every tensor of the model under its name in a checkpoint with untied embeddings; an adapter is added to a copy of each
    matrix that it changes, one at a time, and the base stays as it is. Parameters are cast to `dtype`, where one is given.

    Of a model that is spread over ranks a bucket at a time is gathered, so that all ranks must run through this together.

    Raises:
        SetupError: the adapter is more than LoRA on linear layers.
    """
    for bucket in _buckets(_entries(model)):
        with gathered_parameters(part for entry in bucket for part in entry.parts()):
            for entry in bucket:
                yield entry.name, entry.value(dtype)


class Described(NamedTuple):
    """A tensor that `engine_weights` will give."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


def described_weights(model: Any, dtype: torch.dtype | None = None) -> list[Described]:
    """All that `engine_weights` gives, in its order, and nothing is gathered."""
    return [Described(entry.name, entry.dtype(dtype), shape(entry.base)) for entry in _entries(model)]


def _entries(model: Any) -> list[_Entry]:
    prefix = "base_model.model." if hasattr(model, "peft_config") else ""
    adapted = _adapted(model)
    entries: list[_Entry] = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if "lora_" not in name:
            module, _, leaf = name.rpartition(".")
            layer = adapted.get(module.removesuffix(".base_layer")) if leaf == "weight" else None
            entries.append(_Entry(name.removeprefix(prefix).replace(".base_layer.", "."), tensor, layer))
    if all(entry.name != "lm_head.weight" for entry in entries):
        entries.append(_Entry("lm_head.weight", model.get_output_embeddings().weight))
    return entries


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor of a checkpoint, and the LoRA layer that changes it."""

    name: str
    base: Tensor
    layer: Any = None

    def parts(self) -> list[Tensor]:
        own = [self.base]
        return own if self.layer is None else [*own, *(p for n, p in self.layer.named_parameters() if "lora_" in n)]

    def dtype(self, asked: torch.dtype | None) -> torch.dtype:
        return asked if asked is not None and isinstance(self.base, torch.nn.Parameter) else self.base.dtype

    def value(self, dtype: torch.dtype | None) -> Tensor:
        value = self.base.detach()
        if self.layer is not None:
            value = value + sum(self.layer.get_delta_weight(name) for name in self.layer.active_adapters)
        return whole(value.to(self.dtype(dtype)))


def _buckets(entries: Sequence[_Entry]) -> Iterator[list[_Entry]]:
    """Entries in runs of at most BUCKET_BYTES, or of one that is larger."""
    run: list[_Entry] = []
    held = 0
    for entry in entries:
        needed = sum(map(size, entry.parts()))
        if run and held + needed > BUCKET_BYTES:
            yield run
            run, held = [], 0
        run.append(entry)
        held += needed
    if run:
        yield run


def aliases(model: Any) -> list[set[str]]:
    """The names in a checkpoint that one tensor has, where it has several, as an embedding that is the head's matrix."""
    prefix, names = "base_model.model." if hasattr(model, "peft_config") else "", dict[int, set[str]]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), set()).add(name.removeprefix(prefix).replace(".base_layer.", "."))
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    tied = base.get_input_embeddings() if base.config.tie_word_embeddings else base.get_output_embeddings()
    names.setdefault(id(tied.weight), set()).add("lm_head.weight")  # of shared-out models equal tensors are two objects
    return [group for group in names.values() if len(group) > 1]


def is_plain(model: Any) -> bool:
    """Whether an adapter is LoRA on linear layers, which `engine_weights` can add."""
    try:
        _adapted(model)
    except SetupError:
        return False
    return True


class Fingerprint:
    """A number that changes when a weight does: the sum of all bits, as integers, of the weights that passed through."""

    def __init__(self) -> None:
        self._sum: Tensor | int = 0

    def of(self, weights: Weights) -> Weights:
        """The same weights, added up on their way, on their device."""
        for name, tensor in weights:
            self._sum = _bits(tensor.detach()) + self._sum
            yield name, tensor

    @property
    def value(self) -> int:
        """Of all that passed, modulo 2^64; it waits for the device."""
        return int(self._sum)


def _bits(tensor: Tensor) -> Tensor:
    """The sum of a tensor's bytes as words of 64 bits, and of those that are left over, each by itself; modulo 2^64."""
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    if flat.storage_offset() % 8:
        flat = flat.clone()  # words begin at multiples of their size
    words = len(flat) // 8 * 8
    return flat[:words].view(torch.int64).sum() + flat[words:].sum()


def _adapted(model: Any) -> dict[str, Any]:
    if not hasattr(model, "peft_config"):
        return {}
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    layers = {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    plain = all(
        isinstance(layer, LoraLayer)
        and isinstance(layer.get_base_layer(), torch.nn.Linear)
        and not any(layer.use_dora.values())
        for layer in layers.values()
    )
    if not plain or any(isinstance(module, ModulesToSaveWrapper) for module in model.modules()):
        raise SetupError(
            "The adapter is more than LoRA on linear layers (DoRA, whole modules beside it, or another kind), which cannot "
            "be sent to an engine of its own. Take engine: hf, or plain LoRA."
        )
    return layers


def write_shards(weights: Weights, folder: Path) -> None:
    """Safetensors files of bounded size with their index, as transformers and vLLM read them."""
    shard: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    size = total = 0

    def flush() -> None:
        nonlocal shard, size
        name = f"model-{len(set(names.values())) + 1:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        names.update(dict.fromkeys(shard, name))
        shard, size = {}, 0

    for name, tensor in weights:
        bytes_ = tensor.numel() * tensor.element_size()
        if shard and size + bytes_ > SHARD_BYTES:
            flush()
        shard[name] = tensor.cpu().clone(memory_format=torch.contiguous_format)  # tied tensors may not share memory
        size, total = size + bytes_, total + bytes_
    flush()
    index = {"metadata": {"total_size": total}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
