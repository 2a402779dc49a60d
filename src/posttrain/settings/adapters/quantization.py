"""What a recipe says of the numbers that an adapter's frozen base is held in: QLoRA (arXiv:2305.14314). No torch here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from posttrain.settings.adapters.adapter import Adapter
from posttrain.settings.base import Config

TYPES = {4: ("nf4", "fp4"), 8: ("int8",)}
"""By bits, the first is meant if none is named."""
KINDS = ("lora", "rslora", "dora")
"""Kinds of adapters that are proved over such a base."""
INITS = (None, True, "gaussian")
"""Beginnings that read neither the weights of the base nor their dtype."""
PACKAGE, INSTALL = "bitsandbytes", "'posttrain[quantization]'"
"""The package that holds such weights, and what is installed for it."""
NOTE = "quantization.json"
"""The file beside an adapter's own that says what its base was rounded to."""


class Quantization(Config):
    """The linear layers of the frozen base below an adapter, rounded to few bits when they are loaded (bitsandbytes)."""

    bits: Literal[4, 8] = 4
    """Of a weight."""
    type: Literal["nf4", "fp4", "int8"] | None = None
    """4 bits: nf4, whose 16 values are quantiles of a normal distribution, or fp4. 8 bits: int8, with a scale for each row.
    nf4, and int8, if not set."""
    double: bool = False
    """Of 4 bits: the scales, one for 64 weights, are rounded to 8 bits themselves, as in the paper: 0.4 bits a weight
    less."""

    @model_validator(mode="before")
    @classmethod
    def _is_named(cls, values: Any) -> Any:
        if isinstance(values, dict) and "compute" in values:
            raise ValueError("compute: products are of model.compute, as everywhere: set that")
        bits = values.get("bits", 4) if isinstance(values, dict) else None
        return {**values, "type": TYPES[bits][0]} if bits in (*TYPES,) and values.get("type") is None else values

    @model_validator(mode="after")
    def _fits(self) -> Quantization:
        if self.type not in TYPES[self.bits]:
            raise ValueError(f"type: {self.type} is not of {self.bits} bits; there are {', '.join(TYPES[self.bits])}")
        if self.double and self.bits != 4:
            raise ValueError("double: it rounds the scales of 4 bits; int8 has one for a row: leave double out")
        return self

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.type} with double quantization" if self.double else str(self.type)

    def check(self, adapter: Adapter | None) -> None:
        """Whether what is trained can stand on such a base.

        Raises:
            ValueError: says why not, and what to do.
        """
        if adapter is None:
            raise ValueError("quantization: weights of few bits cannot be trained: set model.adapter, or leave it out")
        if adapter.continue_from is not None:
            return  # which is looked at when it is loaded
        if adapter.kind not in KINDS:
            raise ValueError(
                f"quantization: an adapter of kind {adapter.kind} is not proved over rounded weights: take {', '.join(KINDS)}"
            )
        if adapter.init not in INITS:
            raise ValueError(
                f"quantization: init: {adapter.init} reads the base's own numbers or their dtype, and only rounded ones "
                "are there: take gaussian, or leave init out"
            )
