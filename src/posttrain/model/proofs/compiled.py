"""Whether compiled layers give on short rows what layers give as they are written: log-probs and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.estimator.batch import Batch
from posttrain.model.layout.compiled import as_written, compile_layers, layers_of
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.layout.make import Packed, Rows
from posttrain.model.layout.packed import packed_inputs
from posttrain.model.proofs.trials import first_line, padded, short_rows
from posttrain.model.scoring import Scorer, computing, output_head
from posttrain.telling import tell

BOUND = 0.05
"""Of the difference's norm to the whole's."""


def use_compiled(model: Any, others: Sequence[Any], vocabulary: int, *, layout: Rows, bf16: bool, ranks: int) -> bool:
    """Compiles the model's layers, and those of others that are the same model, where that is right; why not is told once.

    Args:
        model: on its device, as training starts from it.
        others: references, whose log-probs are compared with the model's.
        vocabulary: token ids are below it.
        layout: of rows.
        bf16: products are computed in bfloat16, by autocast.
        ranks: processes that train together.
    """
    if ranks > 1:
        reason = "several processes train together, in which compiled layers were never tried"
    elif not isinstance(layout, Packed) or not layout.varlen:
        reason = "that takes packed rows, in 16 bits, on CUDA"
    else:
        reason = _fails(model, layers_of(model), vocabulary, bf16=bf16)
    if reason is not None:
        tell("compile", f"{type(model).__name__}: {reason}, so that its layers are not compiled.")
        return False
    for other in others:
        compile_layers(layers_of(other))
    return True


def _fails(model: Any, layers: Sequence[nn.Module], vocabulary: int, *, bf16: bool) -> str | None:
    leaves = next((found for one in layers if (found := [p for p in one.parameters() if p.requires_grad])), None)
    if leaves is None:
        return "transformers names no layers of it, or nothing in them is trained"
    if any("forward" in vars(layer) for layer in layers):
        return "its layers are changed by somebody else"
    _, mask = padded(vocabulary)
    device, training = output_head(model).weight.device, model.training
    inputs = packed_inputs(short_rows(vocabulary), Batch(loss_mask=mask), share=True, varlen=True).to(device)
    mask = mask.to(device)
    model.train()
    try:
        plain, again = (_made(model, inputs, mask, leaves, bf16=bf16) for _ in range(2))
        if not torch.equal(plain[0], again[0]):
            return "some of it is dropped out at random"
        compile_layers(layers)
        found = _made(model, inputs, mask, leaves, bf16=bf16)
    except Exception as error:  # whatever a compiler says
        as_written(layers)
        return f"torch.compile fails ({first_line(error)})"
    finally:
        model.train(training)
    far = max(float((ours - own).norm() / own.norm()) for ours, own in zip(found, plain, strict=True))
    if far <= BOUND:
        return None
    as_written(layers)
    return f"compiled, it differs by {far:.3g} of log-probs or gradients"


def _made(model: Any, inputs: ModelInputs, mask: Tensor, leaves: Sequence[Tensor], *, bf16: bool) -> tuple[Tensor, Tensor]:
    with computing(model, bf16=bf16):
        logp = Scorer().score(model, inputs, mask).logp
    gradients = torch.autograd.grad(logp.sum(), leaves, allow_unused=True)
    return logp.detach(), torch.cat([one.flatten().float() for one in gradients if one is not None])
