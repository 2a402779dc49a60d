"""The pretended device: every operation on a CUDA tensor, below autograd and autocast, computed on the CPU over the same
memory. Tensors of two devices in one operation are an error, as on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gpu.attention import Kernel
from gpu.memory import all_on_device, all_on_host, device, host, on_cuda
from gpu.seen import Product, Seen, calling

aten = torch.ops.aten
AS_THEY_ARE = {
    "_unsafe_view",
    "detach",
    "alias",
    "_reshape_alias",
    "lift_fresh",
    "lift",
    "set_",
    "resize_",
    "record_stream",
    "is_pinned",
    "_pin_memory",
    "empty",
    "empty_strided",
    "empty_like",
    "new_empty",
    "new_empty_strided",
    "is_same_size",
    "_has_compatible_shallow_copy_type",
    "sym_size",
    "sym_numel",
}
"""Beside views: what makes no kernel and touches no values."""
COPIES = {"_to_copy", "copy_", "_copy_from", "to"}
WAITS = {
    "_local_scalar_dense": "item",
    "is_nonzero": "item",
    "nonzero": "nonzero",
    "equal": "torch.equal",
    "masked_select": "masked_select",
    "_unique2": "unique",
    "unique_dim": "unique",
    "unique_consecutive": "unique",
    "repeat_interleave": "repeat_interleave",
}
INDEX = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "addmm_": 1, "baddbmm": 1, "baddbmm_": 1, "addbmm": 1, "mv": 0, "dot": 0}
"""Matrix products, and which argument is the left one."""
ONE_OF_THE_HOST = ("_fused_", "_foreach_")
"""Optimizers' kernels, which take learning rates and counts of the host."""


class Mixed(RuntimeError):
    """Tensors of two devices in one operation."""


class Pretended(TorchDispatchMode):
    """Computes CUDA tensors on the CPU, and tells `seen`. Each thread needs its own."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        asked = kwargs.get("device")
        new = asked is not None and torch.device(asked).type == "cuda"
        name = func._schema.name.split("::")[1]
        if not (new or any(map(on_cuda, tensors))) or func.is_view or name in AS_THEY_ARE:
            return func(*args, **kwargs)
        _check(name, tensors)
        self._count(name)
        if name in COPIES:
            return self._copied(name, args, kwargs)
        if name in WAITS:
            self._seen.wait(WAITS[name])
        if name in INDEX:
            self._indexed(args[1])
        if name in ("_softmax", "_safe_softmax"):
            self._seen.attention[self._seen.here(), f"all scores in memory, {_short(tensors[0].dtype)}"] += 1
        if "attention" in name:
            kernel = Kernel(func, all_on_host(args), all_on_host(kwargs))
            self._seen.attention[self._seen.here(), f"{name} {_short(kernel.dtype)}"] += 1
            return _returned(func, args, kwargs, kernel.result())
        options = {key: value for key, value in kwargs.items() if key != "pin_memory"} if new else kwargs
        made = _computed(func, all_on_host(args), all_on_host({**options, "device": torch.device("cpu")} if new else options))
        if name in PRODUCTS:
            self._multiplied(args[PRODUCTS[name]], made)
        return _returned(func, args, kwargs, made)

    def _count(self, name: str) -> None:
        self._seen.kernels[self._seen.here(), name] += 1

    def _copied(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        source = args[1] if name == "copy_" else args[0]
        to = args[0].device if name == "copy_" else torch.device(kwargs.get("device") or source.device)
        beside = bool(args[2] if name == "copy_" and len(args) > 2 else kwargs.get("non_blocking"))
        if on_cuda(source) and to.type == "cpu" and not (beside and name == "copy_" and args[0].is_pinned()):
            self._seen.wait("copy to the CPU")
        elif not on_cuda(source) and to.type == "cuda":
            if not source.is_pinned():
                self._seen.wait("copy from pageable memory")
            elif not beside:
                self._seen.wait("copy that is waited for")
        if name == "copy_":
            target, values = (host(one) if on_cuda(one) else one for one in (args[0], source))
            target.copy_(values)
            return args[0]
        options = {key: value for key, value in kwargs.items() if key not in ("device", "non_blocking", "pin_memory")}
        made = aten._to_copy.default(host(source) if on_cuda(source) else source, **options)
        return device(made) if to.type == "cuda" else made

    def _indexed(self, indices: Sequence[Tensor | None]) -> None:
        for index in indices:
            if index is None:
                continue
            if not on_cuda(index):
                self._seen.wait("index of the CPU's memory")
            elif index.dtype in (torch.bool, torch.uint8):
                self._seen.wait("boolean index")

    def _multiplied(self, left: Tensor, made: Tensor) -> None:
        logits = made.dim() > 1 and made.shape[-1] == self._seen.vocabulary
        product = Product(_short(left.dtype), _short(made.dtype), left.shape[-1] > 1, logits)
        self._seen.products[self._seen.here(), product, calling()] += 1


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check(name: str, tensors: Sequence[Tensor]) -> None:
    kinds = {one.device.type for one in tensors if one.dim()}
    takes_both = name in COPIES or name.startswith(ONE_OF_THE_HOST) or (name in INDEX and on_cuda(tensors[0]))
    if len(kinds) > 1 and not takes_both:
        raise Mixed(f"aten.{name}: tensors of two devices, {' and '.join(sorted(kinds))}")


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    """On the CPU; products of a wider output, which only CUDA has, by their formula."""
    name, overload = func._schema.name.split("::")[1], func._overloadname
    if not overload.startswith("dtype"):
        return func(*args, **kwargs)
    if name in ("mm", "bmm"):
        left, right, dtype = args
        made = left.to(dtype) @ right.to(dtype)
    else:
        total, left, right, dtype = args if len(args) > 3 else (*args, kwargs["out_dtype"])
        made = left.to(dtype) @ right.to(dtype) * kwargs.get("alpha", 1)
        if (beta := kwargs.get("beta", 1)) != 0:
            made = made + beta * total
    out = kwargs.get("out")
    return made if out is None else out.copy_(made)


def _returned(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], made: Any) -> Any:
    """What was made, on the device; what was written in place is the argument itself."""
    schema, written = func._schema, dict[str, Any]()
    for place, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            written |= dict.fromkeys(argument.alias_info.before_set, given)
    if not schema.returns:
        return None
    results = made if isinstance(made, tuple) else (made,)
    out = []
    for returned, value in zip(schema.returns, results, strict=False):
        alias = returned.alias_info
        name = next(iter(alias.before_set), None) if alias is not None and alias.is_write else None
        out.append(written[name] if name in written else all_on_device(value))
    return tuple(out) if isinstance(made, tuple) else out[0]
