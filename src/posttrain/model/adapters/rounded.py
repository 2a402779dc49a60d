"""A base of few bits below an adapter: QLoRA (arXiv:2305.14314), its weights held and made whole again by bitsandbytes.

y = dequantize(W) x + (alpha / r) B A x, of which A and B are trained. The product is that of a whole matrix whose numbers are
those that W stands for, in training and in evaluation, on a CPU and on a GPU: bitsandbytes' own layers round what goes into
int8 as well, and on some CPUs multiply in bfloat16 outside of training, so that the model would not be the one that is saved.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from posttrain.errors import SetupError
from posttrain.settings.adapters.quantization import INSTALL, NOTE, PACKAGE, Quantization
from posttrain.telling import tell

_KEPT = "posttrain_quantization"  # the attribute of a base that has been rounded
_OF_TRANSFORMERS = ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized", "quantization_method", "hf_quantizer")


class Rounded(nn.Linear):
    """A linear layer whose weights are of few bits. Its `weight` is as bitsandbytes packs it."""

    @abstractmethod
    def values(self) -> Tensor:
        """The matrix that it stands for, float32."""

    @property
    @abstractmethod
    def scale_bytes(self) -> int:
        """What it holds beside its parameters."""

    @abstractmethod
    def keep_scales(self) -> None:
        """Puts them where its weight is, and onto it, where peft looks for them."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self.keep_scales()
        return self

    def forward(self, input: Tensor) -> Tensor:
        """The product with that matrix, which is made anew for the backward pass."""
        return _Product.apply(input, self)  # pyright: ignore[reportReturnType]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, layer: Rounded) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.layer = layer
        return nn.functional.linear(input, layer.values(), layer.bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad @ ctx.layer.values().to(grad.dtype), None


@cache
def _layers() -> tuple[tuple[type, type[Rounded]], ...]:
    """bitsandbytes' layers, which peft knows, and ours of them."""
    bitsandbytes, functional = cast(Any, import_module("bitsandbytes")), cast(Any, import_module("bitsandbytes.functional"))

    class Linear4bit(Rounded, bitsandbytes.nn.Linear4bit):
        """Of nf4 or fp4."""

        def values(self) -> Tensor:
            """See `Rounded`."""
            return functional.dequantize_4bit(self.weight.detach(), self.quant_state)

        def keep_scales(self) -> None:
            """See `Rounded`."""
            state: Any = self.quant_state
            state.dtype = torch.float32
            state.to(self.weight.device)
            weight: Any = self.weight
            weight.quant_state = state

        @property
        def scale_bytes(self) -> int:
            """See `Rounded`."""
            state: Any = self.quant_state
            return _bytes(state.absmax) + (_bytes(state.state2.absmax) if state.nested else 0)

    class Linear8bit(Rounded, bitsandbytes.nn.Linear8bitLt):
        """Of int8."""

        scales: Tensor

        def values(self) -> Tensor:
            """See `Rounded`."""
            return functional.int8_vectorwise_dequant(self.weight.detach(), self.scales)

        def keep_scales(self) -> None:
            """See `Rounded`."""
            weight: Any = self.weight
            weight.SCB = self.state.SCB = self.scales

        @property
        def scale_bytes(self) -> int:
            """See `Rounded`."""
            return _bytes(self.scales)

    return (bitsandbytes.nn.Linear4bit, Linear4bit), (bitsandbytes.nn.Linear8bitLt, Linear8bit)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def when_loading(quantization: Quantization) -> dict[str, Any]:
    """What transformers' `from_pretrained` is given to round weights as it reads them, in the machine's memory.

    Raises:
        SetupError: the package is not installed.
    """
    if find_spec(PACKAGE) is None:
        raise SetupError(f"A base in {quantization.label} needs the package {PACKAGE}: pip install {INSTALL}")
    from transformers import BitsAndBytesConfig

    fields: dict[str, Any] = {"load_in_8bit": True}
    if quantization.bits == 4:
        fields = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": quantization.type,
            "bnb_4bit_use_double_quant": quantization.double,
        }
    return {"quantization_config": BitsAndBytesConfig(**fields), "device_map": {"": "cpu"}}


def make_rounded(model: Any, quantization: Quantization, label: str) -> None:
    """Of a model that was loaded so: its layers become ours, and all that is not rounded float32 (by peft's preparation).

    Raises:
        SetupError: there is nothing in it that can be rounded.
    """
    from peft import prepare_model_for_kbit_training

    for module in model.modules():
        for theirs, ours in _layers():
            if type(module) is theirs:
                module.__class__ = ours
                if quantization.bits == 8:
                    module.register_buffer("scales", module.weight.SCB, persistent=False)
                module.keep_scales()
    prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    setattr(model, _KEPT, quantization)
    model.config.dtype = torch.float32
    rounded = sum(layer.in_features * layer.out_features for _, layer in rounded_layers(model))
    if not rounded:
        raise SetupError(f"{label}: it has no linear layer that model.quantization could round. Leave it out.")
    total = weight_count(model)
    tell(
        "rounded",
        f"{rounded:,} of {label}'s {total:,} weights are rounded to {quantization.label} as they are read: the policy and "
        "its reference begin as the rounded model, and the others are float32. Engines, best/ and final/ get the numbers "
        "that the rounded ones stand for, in whole matrices with the adapter added.",
    )


def as_any_other(model: Any) -> None:
    """Takes off a model with its adapter what transformers and accelerate know quantised ones by: it moves, is spread over
    ranks and is saved as any other.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    if quantization_of(model) is None:
        return
    for name in _OF_TRANSFORMERS:
        vars(base).pop(name, None)
    vars(base.config).pop("quantization_config", None)


def quantization_of(model: Any) -> Quantization | None:
    """What its base was rounded to, or None."""
    return getattr(model.get_base_model() if hasattr(model, "peft_config") else model, _KEPT, None)


def rounded_layers(model: nn.Module) -> Iterator[tuple[str, Rounded]]:
    """With their names in it."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Rounded))


def weight_count(model: nn.Module) -> int:
    """The numbers of a model, of which several of a rounded layer are packed into one."""
    packed = {id(layer.weight): layer.in_features * layer.out_features for _, layer in rounded_layers(model)}
    return sum(packed.get(id(p), p.numel()) for p in model.parameters())


def write_note(model: Any, folder: Path) -> None:
    """Beside an adapter's files: what base they are of, where that was rounded."""
    if (quantization := quantization_of(model)) is not None:
        (folder / NOTE).write_text(json.dumps(quantization.model_dump()))


def noted(folder: Path) -> Quantization | None:
    """What was noted beside an adapter's files.

    Raises:
        SetupError: it cannot be read.
    """
    try:
        return Quantization.model_validate(json.loads((folder / NOTE).read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SetupError(f"{folder / NOTE} cannot be read: {str(error).splitlines()[0]}") from None


def check_base(model: Any, folder: Path, base: str) -> None:
    """Tells where an adapter that lies in a folder is of a base in other numbers than the one that it is put on."""
    there, here = noted(folder), quantization_of(model)
    if there != here:
        names = [one.label if one is not None else "whole numbers" for one in (there, here)]
        tell(
            "another-base",
            f"{folder}: the adapter was trained over {base} in {names[0]} and stands here over it in {names[1]}: its "
            "log-probs are others than they were.",
        )
