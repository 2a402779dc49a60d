"""Whether compiled layers give on short rows what layers give as they are written: log-probs and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.estimator.batch import Batch
from posttrain.model.frozen.reference import Reference
from posttrain.model.layers.compiled import as_written, compile_layers, layers_of
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.layout.make import Packed, Rows
from posttrain.model.layout.packed import packed_inputs
from posttrain.model.proofs.trials import first_line, padded, short_rows
from posttrain.model.scoring import Scorer, computing, output_head
from posttrain.telling import tell

NATS, SHARE, SMALL = 0.02, 0.05, 0.1
"""Of log-probs, on average; of the norm of a parameter's gradient; and of the norm of all, below which a parameter's own is
relative to that: some, as those of biases of keys, are nothing but roundings."""


def use_compiled(
    model: Any, reference: Reference | None, vocabulary: int, *, layout: Rows, bf16: bool, ranks: int, deepspeed: bool
) -> bool:
    """Compiles the model's layers, and its reference's, where that is right; why not is told once.

    Args:
        model: on its device, as training starts from it.
        reference: whose log-probs are compared with the model's.
        vocabulary: token ids are below it.
        layout: of rows.
        bf16: products are computed in bfloat16, by autocast.
        ranks: processes that train together.
        deepspeed: it trains.
    """
    if ranks > 1 or deepspeed:
        reason = "several processes, or DeepSpeed, train it, with which compiled layers were never tried"
    elif not isinstance(layout, Packed) or not layout.varlen:
        reason = "that takes packed rows, in 16 bits, on CUDA"
    else:
        reason = _fails(model, reference, vocabulary, bf16=bf16)
    if reason is not None:
        tell("compile", f"{type(model).__name__}: {reason}, so that its layers are not compiled.")
    return reason is None


def _fails(model: Any, reference: Reference | None, vocabulary: int, *, bf16: bool) -> str | None:
    own = layers_of(model)
    leaves = next((found for one in own if (found := [p for p in one.parameters() if p.requires_grad])), None)
    if leaves is None:
        return "transformers names no layers of it, or nothing in them is trained"
    layers = own if reference is None or reference.is_policy else [*own, *layers_of(reference.model)]
    if any("forward" in vars(layer) for layer in layers):
        return "its layers are changed by somebody else"
    tried, device = _Tried(model, reference, leaves, vocabulary, bf16), output_head(model).weight.device
    training = model.training
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            plain, again = tried.made(), tried.made()
            if not torch.equal(plain[0][0], again[0][0]):
                return "some of it is dropped out at random"
            compile_layers(layers)
            reason = _apart(tried.made(), plain)
    except Exception as error:  # whatever a compiler says
        reason = f"torch.compile fails ({first_line(error)})"
    finally:
        model.train(training)
    if reason is not None:
        as_written(layers)
    return reason


Made = tuple[list[Tensor], list[Tensor]]
"""Log-probs of each way, and the gradients of a layer's parameters."""


class _Tried:
    """Rows under a model as it is trained and as it is only read, and under its reference."""

    def __init__(
        self, model: Any, reference: Reference | None, leaves: Sequence[nn.Parameter], vocabulary: int, bf16: bool
    ) -> None:
        _, mask = padded(vocabulary)
        device = output_head(model).weight.device
        self._inputs: ModelInputs = packed_inputs(short_rows(vocabulary), Batch(loss_mask=mask), share=True, varlen=True).to(
            device
        )
        self._model, self._reference, self._leaves, self._bf16 = model, reference, leaves, bf16
        self._mask = mask.to(device)

    def made(self) -> Made:
        """Of all."""
        scorer = Scorer()
        with computing(self._model, bf16=self._bf16):
            self._model.train()
            logp = scorer.score(self._model, self._inputs, self._mask).logp
            gradients = torch.autograd.grad(logp.sum(), self._leaves, allow_unused=True, materialize_grads=True)
            logps = [logp.detach()]
            self._model.eval()
            with torch.no_grad():
                logps.append(scorer.score(self._model, self._inputs, self._mask).logp)
            if self._reference is not None:
                logps.append(self._reference.logp(self._inputs, self._mask, scorer))
        return [one[self._mask].float() for one in logps], [one.float() for one in gradients]


def _apart(found: Made, plain: Made) -> str | None:
    nats = [float((ours - own).abs().mean()) for ours, own in zip(found[0], plain[0], strict=True)]
    if not all(one <= NATS for one in nats):  # one that is no number, too
        return f"compiled, its log-probs differ by {', '.join(f'{one:.3g}' for one in nats)} on average"
    whole = torch.stack([own.norm() for own in plain[1]]).norm()
    pairs = zip(found[1], plain[1], strict=True)
    shares = [float((ours - own).norm() / torch.maximum(own.norm(), SMALL * whole)) for ours, own in pairs]
    if not all(one <= SHARE for one in shares):
        return f"compiled, a gradient differs by {max(shares, key=lambda one: (one != one, one)):.3g} of it"
    return None
