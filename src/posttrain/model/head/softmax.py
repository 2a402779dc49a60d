"""From 16-bit logits to log-probs of the targets and to probabilities, as one operation: 6 bytes of a logit are moved, where
torch's own operations one after another move some 30.

`torch.ops.posttrain.softmax_` is a kernel of our own on CUDA (`kernel.py`), and torch's operations on a CPU, where nothing
but its trial and tests ask for it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROWS, ENTRIES = 7, {33_673: True, 32_784: False}
"""Of the trial: entries, with a bias or without. Of several tiles and of none whole, and rows that begin anywhere, or where
memory is read 16 bytes at a time: Triton compiles a kernel for each."""
CLOSE, ROUNDED, SMALL = 1e-4, 2**-7, 1e-6
"""Of the trial: the largest difference of a log-prob, absolute, and of a probability, relative; one that is smaller is
relative to this."""


@torch.library.custom_op(
    "posttrain::softmax_",
    mutates_args=("logits",),
    schema="(Tensor(a!) logits, Tensor? bias, Tensor targets, float scale) -> Tensor",
    device_types="cpu",
)
def _softmax(logits: Tensor, bias: Tensor | None, targets: Tensor, scale: float) -> Tensor:
    wide = logits.float()
    log_p = ((wide if bias is None else wide + bias) * scale).log_softmax(-1)
    logits.copy_(log_p.exp())
    return log_p.gather(1, targets)


@_softmax.register_kernel("cuda")
def _on_cuda(logits: Tensor, bias: Tensor | None, targets: Tensor, scale: float) -> Tensor:
    from posttrain.model.head.kernel import launch

    with torch.cuda.device(logits.device):
        return launch(logits, bias, targets, scale)


def softmax_(
    logits: Float[Tensor, "c V"], bias: Float[Tensor, " V"] | None, targets: Int[Tensor, "c 1"], scale: float
) -> Float[Tensor, "c 1"]:
    """log p of the targets, in float32. The logits become p = softmax(scale · (logits + bias)), rounded to what they were."""
    op: Any = torch.ops.posttrain.softmax_
    return op(logits, bias, targets, scale)  # type: ignore[no-any-return]


@cache
def kernel_fails(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why logits are not taken to probabilities by the kernel on this device; None where it is right on some of them."""
    if device.type != "cuda" or dtype.itemsize != 2:
        return "it is for logits of 16 bits on CUDA"
    for entries, with_bias in ENTRIES.items():
        draw = torch.Generator().manual_seed(entries)
        logits = (4 * torch.randn(ROWS, entries, generator=draw)).to(dtype)
        bias = torch.randn(entries, generator=draw).to(dtype) if with_bias else None
        targets = torch.randint(entries, (ROWS, 1), generator=draw)
        plain, found = logits.clone(), logits.to(device)
        expected = softmax_(plain, bias, targets, 0.7)
        try:
            log_p = softmax_(found, None if bias is None else bias.to(device), targets.to(device), 0.7).cpu()
        except Exception as error:  # whatever a compiler says
            return f"the kernel of the output layer fails ({(str(error).splitlines() or [type(error).__name__])[0]})"
        p, own = found.cpu().float(), plain.float()
        apart, of_p = (log_p - expected).abs().max(), ((p - own).abs() / own.clamp(min=SMALL)).max()
        if not (apart <= CLOSE and of_p <= ROUNDED):
            return f"the kernel of the output layer is {apart:.3g} from log-probs, {of_p:.3g} of probabilities"
    return None
