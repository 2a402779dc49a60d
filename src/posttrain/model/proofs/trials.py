"""What a model can take, tried on short rows before it is trained: a head that is its matrix alone, packed rows, and the
kernel for stretches of any length, which they are attended to by.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posttrain.data.rows import Row
from posttrain.estimator.batch import Batch
from posttrain.model.head import kernel_fails
from posttrain.model.layout.attention import PREFIX, take_layouts
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.layout.packed import packed_inputs
from posttrain.model.layout.padded import model_inputs
from posttrain.model.layout.trial import BOUND, Seen, difference
from posttrain.model.scoring import Scorer, is_linear, output_head
from posttrain.settings.training import HeadPath, RowLayout
from posttrain.telling import tell


def usable_head(model: Any, asked: HeadPath, vocabulary: int) -> HeadPath:
    """The path of the head that was asked for, or `whole` where the model does more to its logits than multiply by a matrix.

    Such a model is told of once.
    """
    head, reason = output_head(model), None
    if not is_linear(head):
        reason = f"its output layer is a {type(head).__name__}"
    elif asked != "whole":
        inputs, mask = padded(vocabulary)
        difference = (_scored(model, inputs, mask, Scorer()) - _of_own_logits(model, inputs, mask)).abs().max().item()
        if not difference <= _bound(model, 1e-3):
            reason = f"it changes its logits after the output layer (log-probs differ by {difference:.3g})"
    if reason is None or asked == "whole":
        return asked
    tell("head", f"{type(model).__name__}: {reason}, so that its whole logits are made.")
    return "whole"


def usable_layout(model: Any, asked: RowLayout, vocabulary: int) -> RowLayout:
    """The layout of rows that was asked for, or `padded` where the model cannot keep documents of a row apart.

    Such a model is told of once. Of one that can, the attention layers take layouts from now on.
    """
    if asked == "padded":
        return asked
    named = str(model.config._attn_implementation).removeprefix(PREFIX)
    reason = _attends_to_part(model.config.get_text_config()) or _fails_with_packed_rows(model, vocabulary)
    if reason is None:
        if named != "sdpa":
            tell(
                "attention-of-padded-rows",
                f"attn_implementation: {named} is of padded rows and of sampling. Rows of training share forward passes, in "
                f"which documents are attended to by torch's own kernels; for {named} there too set training.layout: padded.",
            )
        return asked
    tell("layout", f"{type(model).__name__}: {reason}, so that rows are padded.")
    return "padded"


def usable_varlen(model: Any, layout: RowLayout, vocabulary: int, *, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packed rows are attended to by the kernel for stretches of any length, in the dtype of the matrix products.

    On CUDA it is tried there with heads as the model's against the plain way, block by block; why not is told once.
    """
    if layout == "padded" or device.type != "cuda":
        return False
    reason = _varlen_fails(model, vocabulary, device, dtype)
    if reason is not None:
        tell("attention", f"{type(model).__name__}: {reason}, so that packed rows are attended to block by block.")
    return reason is None


def tell_of_plain_head(head: HeadPath, *, device: torch.device, dtype: torch.dtype) -> None:
    """Says it where logits of 16 bits on CUDA are not taken to probabilities by the kernel that is there for them."""
    if head != "whole" and device.type == "cuda" and dtype.itemsize == 2 and (reason := kernel_fails(device, dtype)):
        tell("head", f"{reason}, so that torch's own operations do it.")


def _varlen_fails(model: Any, vocabulary: int, device: torch.device, dtype: torch.dtype) -> str | None:
    if dtype.itemsize != 2:
        return f"it is computed in {str(dtype).removeprefix('torch.')}, and the kernel for rows of any length takes 16 bits"
    _, mask = padded(vocabulary)
    packed = packed_inputs(short_rows(vocabulary), Batch(loss_mask=mask), share=True)
    assert packed.layout is not None
    _scored(model, replace(packed, layout=(seen := Seen(packed.layout))), mask, Scorer("whole"))
    try:
        found = [difference(heads, device, dtype) for heads in sorted(seen.heads)]
    except (AttributeError, RuntimeError, TypeError) as error:
        return f"the kernel for rows of any length fails ({first_line(error)})"
    far = [f"{one:.3g}" for one in found if not one <= BOUND]  # one that is no number, too
    return f"the kernel for rows of any length differs from the plain way by {far[0]} of it" if far else None


def tell_of_plain_attention(model: Any, *, device: str, bf16: bool) -> None:
    """Says it where no kernel of attention takes the model as it is computed, but the one that holds all scores in memory."""
    config, weight = model.config.get_text_config(), output_head(model).weight
    heads, keys = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    if device == "cuda" and not bf16 and weight.element_size() >= 4 and keys not in (None, heads):
        tell(
            "plain-attention",
            f"{type(model).__name__} has {heads} heads of queries on {keys} of keys. In {str(weight.dtype)[6:]} a GPU has "
            "only the plain kernel of attention for these, which holds the scores of all pairs of tokens in memory: set "
            "model.compute: bfloat16 (bf16=True).",
        )


def _attends_to_part(config: Any) -> str | None:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    if kinds:
        return f"it has layers of {', '.join(sorted(kinds))}"
    windows = [name for name in ("sliding_window", "attention_chunk_size") if getattr(config, name, None)]
    return f"its attention is bounded ({windows[0]})" if windows else None


def _fails_with_packed_rows(model: Any, vocabulary: int) -> str | None:
    former, whole = model.config._attn_implementation, Scorer("whole")  # right for every model
    try:
        take_layouts(model)
        inputs, mask = padded(vocabulary)
        packed = packed_inputs(short_rows(vocabulary), Batch(loss_mask=mask), share=True).to(inputs.input_ids.device)
        difference = (_scored(model, packed, mask, whole) - _scored(model, inputs, mask, whole)).abs().max().item()
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = f"it takes no packed rows ({first_line(error)})"
    else:
        if difference <= _bound(model, 1e-4):
            return None
        reason = f"it does not keep packed rows apart (log-probs differ by {difference:.3g})"
    model.set_attn_implementation(former)
    return reason


def first_line(error: Exception) -> str:
    """Of what it says, or its name."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def short_rows(vocabulary: int) -> list[Row]:
    """Two answers to one prompt, and one to another."""
    rows = list[Row]()
    for number, (prompt, answer) in enumerate([(3, 4), (3, 2), (5, 6)]):
        tokens = (np.arange(prompt + answer, dtype=np.int32) + (np.arange(prompt + answer) >= prompt) * number) % vocabulary
        rows.append(Row(tokens[:prompt], tokens[prompt:], np.ones(answer, np.bool_)))
    return rows


def padded(vocabulary: int) -> tuple[ModelInputs, Tensor]:
    """The short rows, a row for each, and their mask [B, T]."""
    rows = short_rows(vocabulary)
    lengths = torch.tensor([len(row.completion) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return model_inputs(rows, Batch(loss_mask=mask), pad_id=0), mask


@torch.no_grad()
def _scored(model: Any, inputs: ModelInputs, mask: Tensor, scorer: Scorer) -> Tensor:
    device, training = output_head(model).weight.device, model.training
    model.eval()
    try:
        return scorer.score(model, inputs.to(device), mask.to(device)).logp
    finally:
        model.train(training)


@torch.no_grad()
def _of_own_logits(model: Any, inputs: ModelInputs, mask: Tensor) -> Tensor:
    device, training = output_head(model).weight.device, model.training
    inputs, placed = inputs.to(device), torch.zeros(mask.numel(), device=device)
    model.eval()
    try:
        logits = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits
    finally:
        model.train(training)
    log_p = logits[inputs.row, inputs.position].float().log_softmax(-1)
    return placed.index_put((inputs.index,), log_p.gather(1, inputs.target[:, None])[:, 0]).view(mask.shape)


def _bound(model: Any, exact: float) -> float:
    return 0.1 if output_head(model).weight.dtype in (torch.bfloat16, torch.float16) else exact
