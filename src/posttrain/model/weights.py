"""Every tensor of a model, whole, under its name in a plain checkpoint; and the files that such tensors make."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from posttrain.distributed.sharding import gathered_parameters, is_sharded, shape, size, whole
from posttrain.errors import SetupError
from posttrain.model.adapters.merging import PREFIX, adapted_modules, base_of, is_added, merged, own_parameters
from posttrain.model.adapters.rounded import Rounded, rounded_layers

BUCKET_BYTES = 2**29  # gathered at a time from the ranks that share a model
SHARD_BYTES = 4 * 2**30  # of a safetensors file; only one is held beside the model
Weights = Iterator[tuple[str, Tensor]]


@torch.no_grad()
def engine_weights(model: Any, dtype: torch.dtype | None = None) -> Weights:
    """Every tensor of the model under its name in a checkpoint with untied embeddings; an adapter is merged into a copy of
    each module that it changes, one at a time, and the base stays as it is. Parameters are cast to `dtype`, where there is
    one.

    Of a model that is spread over ranks a bucket at a time is gathered, so that all ranks must run through this together.

    Raises:
        SetupError: the adapter cannot be merged.
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
    return [Described(entry.name, entry.dtype(dtype), entry.shape) for entry in _entries(model)]


def _entries(model: Any) -> list[_Entry]:
    adapted = adapted_modules(model)
    if is_sharded(model) and not all(map(is_added, adapted.values())):
        raise SetupError(
            "The adapter is more than LoRA on linear layers, which cannot be merged where ranks share a model: take "
            "distributed.mode: ddp."
        )
    entries: list[_Entry] = []
    done = set[str]()
    rounded = dict(rounded_layers(model))
    for name, tensor in model.state_dict(keep_vars=True).items():
        layer = next((rounded[one] for one in _owners(name) if one in rounded), None)
        if not hasattr(model, "peft_config"):
            entries.extend(_of_base(name, tensor, layer))
            continue
        plain = name.removeprefix(PREFIX)
        within = next((one for one in _owners(plain) if one in adapted), None)
        if within is not None and within not in done:
            done.add(within)
            entries.extend(_of_module(within, adapted[within]))
        elif within is None and name.startswith(PREFIX):
            entries.extend(_of_base(plain, tensor, layer))
    if all(entry.name != "lm_head.weight" for entry in entries):
        entries.append(_Entry("lm_head.weight", model.get_output_embeddings().weight))
    return entries


def _owners(name: str) -> Iterator[str]:
    """The modules that a tensor lies in, by their names, the innermost first."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _of_module(name: str, module: Any) -> Iterator[_Entry]:
    added, base = is_added(module), base_of(module)
    layer = base if isinstance(base, Rounded) else None
    for leaf, tensor in base.state_dict(keep_vars=True).items():
        changed = not added or leaf == "weight"
        for entry in _of_base(f"{name}.{leaf}", tensor, layer):
            yield replace(entry, module=module if changed else None, leaf=leaf)


def _of_base(name: str, tensor: Tensor, layer: Rounded | None) -> Iterator[_Entry]:
    """Of a rounded layer its weight and bias alone: what it packs beside them is in the weight."""
    if layer is None or tensor is layer.bias:
        yield _Entry(name, tensor)
    elif tensor is layer.weight:
        yield _Entry(name, tensor, rounded=layer)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor of a checkpoint; and the module of the adapter that changes it, in which it is called `leaf`."""

    name: str
    base: Tensor
    module: Any = None
    leaf: str = ""
    rounded: Rounded | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return shape(self.base) if self.rounded is None else (self.rounded.out_features, self.rounded.in_features)

    def parts(self) -> list[Tensor]:
        own = [self.base]
        return own if self.module is None else [*own, *own_parameters(self.module)]

    def dtype(self, asked: torch.dtype | None) -> torch.dtype:
        own = torch.float32 if self.rounded is not None else self.base.dtype
        return asked if asked is not None and isinstance(self.base, torch.nn.Parameter) else own

    def value(self, dtype: torch.dtype | None) -> Tensor:
        value = self.base.detach() if self.rounded is None else self.rounded.values()
        if self.module is not None and is_added(self.module):
            value = value + sum(self.module.get_delta_weight(name) for name in self.module.active_adapters)
        elif self.module is not None:
            value = merged(self.module)[self.leaf].detach()
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
    names: dict[int, set[str]] = {}
    for entry in _entries(model):
        names.setdefault(id(entry.base), set()).add(entry.name)
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    tied = base.get_input_embeddings() if base.config.tie_word_embeddings else base.get_output_embeddings()
    names.setdefault(id(base_of(tied).weight), set()).add("lm_head.weight")  # of shared-out models equals are two objects
    return [group for group in names.values() if len(group) > 1]


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
