"""What the attention kernels of CUDA compute, by formula, in float32: outputs, log-sum-exps and gradients, and what each
kernel refuses.

The backward pass uses the output and the log-sum-exp that it is handed, as the kernels do: they may be those of more keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

SIXTEEN_BITS = (torch.float16, torch.bfloat16)
CAUSAL_UPPER, CAUSAL_LOWER = 1, 2  # custom_mask_type of the memory-efficient kernel


class Refused(RuntimeError):
    """A kernel does not take this."""


@dataclass(frozen=True)
class Mask:
    """Which keys a query sees, where both end at the same token: `left` before its own and `right` after it, all if None."""

    left: int | None = None
    right: int | None = None
    upper: bool = False
    """Both begin at the same token instead."""

    def of(self, queries: int, keys: int) -> Tensor:
        """[queries, keys], bool."""
        own = torch.arange(queries)[:, None] + (0 if self.upper else keys - queries)
        key = torch.arange(keys)
        seen = torch.ones(queries, keys, dtype=torch.bool)
        if self.left is not None:
            seen &= key >= own - self.left
        if self.right is not None:
            seen &= key <= own + self.right
        return seen


@dataclass(frozen=True)
class Document:
    """Queries [B, h, L, d], and keys and values [B, k, S, d], with k a divisor of h."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    mask: Mask
    bias: Tensor | None = None

    @property
    def groups(self) -> int:
        """Heads of queries that share one of keys."""
        return self.query.shape[1] // self.key.shape[1]

    def scores(self) -> Tensor:
        """[B, h, L, S], -inf where a query does not see a key."""
        scores = self.query @ self.key.repeat_interleave(self.groups, 1).mT * self.scale
        scores = scores if self.bias is None else scores + self.bias
        return scores.masked_fill(~self.mask.of(*scores.shape[-2:]), -torch.inf)

    def forward(self) -> tuple[Tensor, Tensor]:
        """The output [B, h, L, d], 0 for a query that sees nothing, and the log-sum-exp [B, h, L]."""
        scores = self.scores()
        lse = scores.logsumexp(-1)
        return _weights(scores, lse) @ self.value.repeat_interleave(self.groups, 1), lse

    def backward(self, grad: Tensor, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of queries, keys and values."""
        weights = _weights(self.scores(), lse)
        d_value = weights.mT @ grad
        slope = weights * (grad @ self.value.repeat_interleave(self.groups, 1).mT - (grad * out).sum(-1, keepdim=True))
        d_query = slope @ self.key.repeat_interleave(self.groups, 1) * self.scale
        d_key = slope.mT @ self.query * self.scale
        return d_query, self._shared(d_key), self._shared(d_value)

    def _shared(self, of_queries: Tensor) -> Tensor:
        return of_queries.unflatten(1, (-1, self.groups)).sum(2)


class Kernel:
    """A call of one of torch's attention operations on CUDA, its tensors on the host.

    Raises:
        Refused: the kernel would raise, or read what is not there.
    """

    def __init__(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        arguments = func._schema.arguments
        self._returns = func._schema.returns
        self._given: dict[str, Any] = {one.name: one.default_value for one in arguments if one.has_default_value()}
        self._given |= {one.name: value for one, value in zip(arguments, args, strict=False)} | dict(kwargs)
        self.name = func._schema.name.split("::")[1]
        self.dtype: torch.dtype = self._given["query"].dtype
        self._is_backward = self.name.endswith("backward")
        self._by_token = self.name.startswith(("_flash", "_efficient", "_cudnn"))  # [B, L, h, d], or [T, h, d]
        self._starts = [self._lengths(side) for side in "qk"]
        self._check()

    def result(self) -> tuple[Any, ...]:
        """What the operation returns, as its schema has it."""
        if self._is_backward:
            made = [self._like(name, parts) for name, parts in zip(("query", "key", "value"), self._gradients(), strict=True)]
            return (*made, *(torch.zeros(0) for _ in self._returns[len(made) :]))
        parts = [document.forward() for document in self._documents()]
        output = self._like("query", [output for output, _ in parts])
        lse = torch.cat([lse[0] for _, lse in parts], -1) if self._packed else parts[0][1]
        longest = [self._size("query"), self._size("key")]
        rest = [longest[one.name.endswith("k")] if "max" in (one.name or "") else _empty(one) for one in self._returns[2:]]
        return (output, lse.contiguous(), *rest)

    @property
    def _packed(self) -> bool:
        return self._starts[0] is not None

    def _lengths(self, side: str) -> list[int] | None:
        starts = next((self._given[name] for name in (f"cum_seq_{side}", f"cu_seqlens_{side}") if name in self._given), None)
        if starts is None or not starts.numel():
            return None
        if starts.dtype != torch.int32:
            raise Refused(f"{self.name}: offsets must be int32, not {starts.dtype}")
        return starts.tolist()

    def _check(self) -> None:
        query, key = self._given["query"], self._given["key"]
        if "efficient" not in self.name and query.dtype not in SIXTEEN_BITS:
            raise Refused(f"{self.name} takes 16 bits, not {query.dtype}")
        if len({self._given[name].dtype for name in ("query", "key", "value")}) > 1:
            raise Refused(f"{self.name}: query, key and value have different dtypes")
        if query.shape[-1] % 8:
            raise Refused(f"{self.name}: the size of a head is no multiple of 8")
        heads = -2 if self._by_token else 1
        if "efficient" in self.name and query.shape[heads] != key.shape[heads]:
            raise Refused(f"{self.name} has no grouped heads")
        if self._given.get("dropout_p"):
            raise Refused(f"{self.name}: dropout is not rehearsed")
        for side, states, starts in zip("qk", (query, key), self._starts, strict=True):
            if starts is None:
                continue
            longest = max(b - a for a, b in pairwise(starts))
            told = next(self._given[name] for name in (f"max_{side}", f"max_seqlen_{side}") if name in self._given)
            if starts[0] or starts[-1] != states.shape[-3] or told < longest:
                raise Refused(f"{self.name}: offsets {starts} and longest {told} do not fit {states.shape[-3]} tokens")

    def _mask(self) -> Mask:
        kind = self._given.get("custom_mask_type", CAUSAL_UPPER if "efficient" in self.name else CAUSAL_LOWER)
        left, right = (self._given.get(f"window_size_{side}") for side in ("left", "right"))
        if self._given.get("is_causal") or ("custom_mask_type" in self._given and kind):
            return Mask(right=0, upper=kind == CAUSAL_UPPER)
        return Mask(None if left is None or left < 0 else left, None if right is None or right < 0 else right)

    def _documents(self) -> Iterator[Document]:
        scale = self._given.get("scale") or self._given["query"].shape[-1] ** -0.5
        bias = self._given.get("attn_bias", self._given.get("bias"))
        bias = None if bias is None or not bias.numel() else bias.float()
        parts = (self._parts(name) for name in ("query", "key", "value"))
        for query, key, value in zip(*parts, strict=True):
            yield Document(query, key, value, scale, self._mask(), bias)

    def _parts(self, name: str) -> list[Tensor]:
        """A tensor's documents, [B, h, L, d] in float32."""
        whole, starts = self._given[name].float(), self._starts[name in ("key", "value")]
        if starts is None:
            return [whole.transpose(1, 2) if self._by_token else whole]
        tokens = whole.flatten(0, -3)
        return [tokens[a:b].transpose(0, 1)[None] for a, b in pairwise(starts)]

    def _gradients(self) -> Iterator[list[Tensor]]:
        lse, grad = self._given["logsumexp"], "grad_out" if "grad_out" in self._given else "grad_out_"
        starts = self._starts[0] or []
        lses = [lse[:, a:b][None] for a, b in pairwise(starts)] or [lse]
        given = zip(self._documents(), self._parts(grad), self._parts("out"), lses, strict=True)
        made = [document.backward(slope, out, sums) for document, slope, out, sums in given]
        return map(list, zip(*made, strict=True))

    def _like(self, name: str, parts: list[Tensor]) -> Tensor:
        given = self._given[name]
        if self._packed:
            return torch.cat([part[0].transpose(0, 1) for part in parts]).view(given.shape).to(given.dtype)
        by_token = parts[0].transpose(1, 2).to(given.dtype).contiguous()
        return by_token if self._by_token else by_token.transpose(1, 2)

    def _size(self, name: str) -> int:
        return self._given[name].shape[1 if self._by_token else 2]


def _weights(scores: Tensor, lse: Tensor) -> Tensor:
    return (scores - torch.where(lse == -torch.inf, 0, lse)[..., None]).exp()


def _empty(returned: Any) -> Tensor:
    return torch.zeros(0 if "mask" in returned.name or "cum_seq" in returned.name else 2, dtype=torch.int32)
