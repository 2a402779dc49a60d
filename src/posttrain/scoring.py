"""Log-probs of completions under a model: one forward of its trunk, and its head only where loss is carried.

The head's module runs inside the model's own forward, with its `forward` replaced for the call, so that every wrapper
(DDP, DeepSpeed, peft, autocast) sees an ordinary call of the model. Packed rows and shared prompts, when they come, are
other layouts of `ModelInputs` with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from posttrain.errors import SetupError
from posttrain.logprobs import Head, Teacher, token_logprobs


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """Rows as the model reads them, and where in them the tokens that carry loss are predicted.

    `row`, `position` say where the hidden state that predicts a scored token stands; `index` where its log-prob goes in
    [B, T]; `target` is its id. All four have one entry for each scored token.
    """

    input_ids: Int[Tensor, "B S"]
    attention_mask: Bool[Tensor, "B S"]
    row: Int[Tensor, " n"]
    position: Int[Tensor, " n"]
    index: Int[Tensor, " n"]
    target: Int[Tensor, " n"]

    def to(self, device: torch.device) -> ModelInputs:
        """The same on another device."""
        return ModelInputs(*(getattr(self, name).to(device) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Scores:
    """[B, T], 0 where no token carries loss."""

    logp: Float[Tensor, "B T"]
    entropy: Float[Tensor, "B T"] | None = None
    kl: Float[Tensor, "B T"] | None = None


def score(
    model: nn.Module,
    inputs: ModelInputs,
    loss_mask: Bool[Tensor, "B T"],
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    teacher: Teacher | None = None,
) -> Scores:
    """Log-probs of the tokens of `loss_mask` under the sampling distribution softmax(logits / temperature).

    Raises:
        SetupError: the model's head is not a plain linear layer.
    """
    head = output_head(model)

    def scored(hidden: Tensor) -> Tensor:
        picked = hidden[inputs.row, inputs.position]
        own = Head(head.weight, head.bias)
        return token_logprobs(picked, own, inputs.target, temperature=temperature, entropy=entropy, teacher=teacher)

    columns = list(_run(model, inputs, scored).unbind(1))
    placed = [_place(column, inputs.index, loss_mask) for column in columns]
    return Scores(logp=placed[0], entropy=placed[1] if entropy else None, kl=placed[-1] if teacher is not None else None)


@torch.no_grad()
def hidden_states(model: nn.Module, inputs: ModelInputs) -> Float[Tensor, "n H"]:
    """The states from which the scored tokens are predicted, without gradient."""
    return _run(model, inputs, lambda hidden: hidden[inputs.row, inputs.position])


def output_head(model: Any) -> nn.Linear:
    """The model's output layer.

    Raises:
        SetupError: it has none, or one that is more than a matrix (a LoRA layer on it, for instance).
    """
    owner = model
    while not hasattr(owner, "get_output_embeddings") and hasattr(owner, "module"):
        owner = owner.module
    head = owner.get_output_embeddings() if hasattr(owner, "get_output_embeddings") else None
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward:  # FSDP2 has a class of its own for it
        kind = "none" if head is None else type(head).__name__
        raise SetupError(
            f"{type(model).__name__}: the output layer must be a plain torch.nn.Linear, and is {kind}. "
            "Leave the head out of the adapter's target modules, or choose another model."
        )
    return head


def check_head(model: Any, vocabulary: int) -> None:
    """Compares our log-probs with those of the model's own logits on a short row, and refuses a model that does more.

    Raises:
        SetupError: the model scales, caps or otherwise changes its logits after the head.
    """
    device = output_head(model).weight.device
    tokens = torch.arange(8, device=device)[None] % vocabulary
    at = torch.arange(7, device=device)
    inputs = ModelInputs(tokens[:, :-1], torch.ones_like(tokens[:, :-1], dtype=torch.bool), at * 0, at, at, tokens[0, 1:])
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            ours = score(model, inputs, torch.ones_like(inputs.input_ids, dtype=torch.bool)).logp[0]
            logits = model(input_ids=tokens[:, :-1]).logits[0]
    finally:
        model.train(training)
    own = logits.to(ours.dtype).log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
    bound = 0.1 if logits.dtype in (torch.bfloat16, torch.float16) else 1e-3
    if not torch.allclose(ours, own, rtol=0, atol=bound):
        raise SetupError(
            f"{type(model).__name__} changes its logits after the output layer (log-probs differ by "
            f"{(ours - own).abs().max().item():.3g}); such models are not supported."
        )


def _run(model: Any, inputs: ModelInputs, head_forward: Callable[[Tensor], Tensor]) -> Tensor:
    with _replaced_forward(output_head(model), head_forward):
        output = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, use_cache=False)
    return output.logits


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


def _place(values: Float[Tensor, " n"], index: Int[Tensor, " n"], loss_mask: Bool[Tensor, "B T"]) -> Tensor:
    flat = torch.zeros(loss_mask.numel(), dtype=values.dtype, device=values.device)
    return flat.index_put((index,), values).view(loss_mask.shape)
