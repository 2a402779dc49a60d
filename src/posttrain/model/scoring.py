"""Log-probs of completions under a model: one forward of its trunk, and its head only where loss is carried.

The head's module runs inside the model's own forward, with its `forward` replaced for the call, so that every wrapper
(DDP, DeepSpeed, peft, autocast) sees an ordinary call of the model. Padded rows, packed rows and shared prompts are other
`ModelInputs` with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from posttrain.errors import SetupError
from posttrain.estimator.batch import Batch
from posttrain.estimator.loss import LossOutput
from posttrain.model.head import Columns, Head, ReferenceStates, Weigh, full_logprobs, in_one_pass, named, token_logprobs
from posttrain.model.layers.products import Linear
from posttrain.model.layout.inputs import ModelInputs
from posttrain.settings.training import HeadPath


@dataclass(frozen=True, slots=True)
class Scores:
    """[B, T], 0 where no token carries loss. `collision`, the log of the sum of squared probabilities, has no gradient."""

    logp: Float[Tensor, "B T"]
    entropy: Float[Tensor, "B T"] | None = None
    collision: Float[Tensor, "B T"] | None = None
    divergence: Float[Tensor, "B T"] | None = None

    def beside(self, batch: Batch) -> Batch:
        """The batch, with what losses read of the policy's distributions and do not differentiate."""
        return batch if self.collision is None else batch.replace(collision=self.collision.detach())


@dataclass(frozen=True, slots=True)
class Scorer:
    """How a model's tokens are scored, once the model has been tried.

    head: `whole` takes the model's own logits, after all that it does to them; slower, and they exist; right for a head that
    is more than a matrix, and for capped or scaled logits. temperature: of the distribution softmax(logits / temperature).
    """

    head: HeadPath = "two_pass"
    temperature: float = 1.0

    def score(
        self,
        model: nn.Module,
        inputs: ModelInputs,
        loss_mask: Bool[Tensor, "B T"],
        *,
        entropy: bool = False,
        collision: bool = False,
        reference: ReferenceStates | None = None,
    ) -> Scores:
        """Log-probs of the tokens of `loss_mask`, and what else is asked for, with gradient."""
        head, whole = output_head(model), {"entropy": entropy, "collision": collision}
        if self.head == "whole":
            own = head.forward
            logits = _run(model, inputs, lambda hidden: own(hidden[inputs.row, inputs.position]))
            columns = full_logprobs(logits, inputs.target, temperature=self.temperature, **whole)
            return _scores(columns, inputs.index, loss_mask, **whole)

        def scored(hidden: Tensor) -> Tensor:
            picked, layer = hidden[inputs.row, inputs.position], Head(head.weight, head.bias)
            asked = self._asked(entropy, reference)
            return token_logprobs(picked, layer, inputs.target, collision=collision, **asked)

        return _scores(_run(model, inputs, scored), inputs.index, loss_mask, **whole)

    def loss_in_one_pass(
        self,
        model: nn.Module,
        inputs: ModelInputs,
        loss_mask: Bool[Tensor, "B T"],
        loss_of: Callable[[Scores], LossOutput],
        slopes: Weigh,
        *,
        entropy: bool = False,
        reference: ReferenceStates | None = None,
    ) -> tuple[Scores, LossOutput]:
        """The scores, without gradient, and `loss_of` them, whose gradient is made while the head runs, of its `slopes`."""
        head, made = output_head(model), list[Columns]()

        def weighed(hidden: Tensor) -> Tensor:
            picked, layer = hidden[inputs.row, inputs.position], Head(head.weight, head.bias)
            carrier, columns = in_one_pass(picked, layer, inputs.target, slopes, **self._asked(entropy, reference))
            made.append(columns)
            return carrier

        carrier = _run(model, inputs, weighed)
        scores = _scores(made[0], inputs.index, loss_mask, entropy=entropy)
        with torch.no_grad():
            output = loss_of(scores)
        return scores, replace(output, loss=output.loss + carrier)

    def _asked(self, entropy: bool, reference: ReferenceStates | None) -> dict[str, Any]:
        return {"temperature": self.temperature, "entropy": entropy, "reference": reference}


@torch.no_grad()
def hidden_states(model: nn.Module, inputs: ModelInputs) -> Float[Tensor, "n H"]:
    """The states from which the scored tokens are predicted, without gradient."""
    return _run(model, inputs, lambda hidden: hidden[inputs.row, inputs.position])


@torch.no_grad()
def drawn(model: nn.Module, inputs: ModelInputs, generator: torch.Generator) -> ModelInputs:
    """The same inputs, whose tokens to be scored are drawn from the model's distribution in their places."""
    own = output_head(model).forward
    logits = _run(model, inputs, lambda hidden: own(hidden[inputs.row, inputs.position]))
    return replace(inputs, target=torch.multinomial(logits.float().softmax(-1), 1, generator=generator)[:, 0])


def output_head(model: Any) -> Any:
    """The module that makes the model's logits.

    Raises:
        SetupError: it has none.
    """
    owner = model
    while not hasattr(owner, "get_output_embeddings") and hasattr(owner, "module"):
        owner = owner.module
    head = owner.get_output_embeddings() if hasattr(owner, "get_output_embeddings") else None
    if head is None:
        raise SetupError(f"{type(model).__name__} has no output layer: a causal language model is needed.")
    return head


def computing(model: Any, *, bf16: bool) -> AbstractContextManager[Any]:
    """Products in bfloat16, or in the dtype of what is multiplied, whatever is on around it."""
    return torch.autocast(output_head(model).weight.device.type, torch.bfloat16, enabled=bf16)


@contextmanager
def without_autocast(model: Any) -> Iterator[None]:
    """Without the one that accelerate has put around the model's forward."""
    wrapped, own = vars(model).get("forward"), vars(model).get("_original_forward")
    if own is not None:
        model.forward = own
    try:
        yield
    finally:
        if own is not None:
            model.forward = wrapped


def is_linear(head: Any) -> bool:
    """Whether an output layer is a matrix and nothing more; one with a LoRA layer on it, for instance, is not."""
    return isinstance(head, nn.Linear) and type(head).forward in (nn.Linear.forward, Linear.forward)  # FSDP2 has a class


def _run(model: Any, inputs: ModelInputs, head_forward: Callable[[Tensor], Tensor]) -> Tensor:
    options: dict[str, Any] = {"attention_mask": inputs.attention_mask}
    if inputs.layout is not None:
        no_mask = torch.zeros(1, 1, 0, 0, device=inputs.input_ids.device)  # of four axes: transformers makes none itself
        options = {"attention_mask": no_mask, "position_ids": inputs.position_ids, "layout": inputs.layout}
    with _replaced_forward(output_head(model), head_forward):
        return model(input_ids=inputs.input_ids, use_cache=False, **options).logits


@contextmanager
def _replaced_forward(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def _scores(columns: Columns, index: Int[Tensor, " n"], loss_mask: Bool[Tensor, "B T"], **asked: bool) -> Scores:
    of = named(columns, **asked)
    logp, *others = (None if one is None else _place(one[:, 0], index, loss_mask) for one in of)
    assert logp is not None
    return Scores(logp, *others)


def _place(values: Float[Tensor, " n"], index: Int[Tensor, " n"], loss_mask: Bool[Tensor, "B T"]) -> Tensor:
    flat = torch.zeros(loss_mask.numel(), dtype=values.dtype, device=values.device)
    return flat.index_put((index,), values).view(loss_mask.shape)
