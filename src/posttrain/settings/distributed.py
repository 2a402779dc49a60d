"""How a recipe spreads its model over processes. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from posttrain.settings.base import Config

Mode = Literal["ddp", "zero1", "zero2", "zero3", "fsdp2"]


class DistributedConfig(Config):
    """What each process holds a share of, and for how long one waits for another."""

    mode: Mode = "ddp"
    """ddp: every process has the whole model. zero1, zero2, zero3 (DeepSpeed): the optimizer's state is shared out; gradients
    as well; parameters as well. fsdp2 (PyTorch): all three."""
    processes: Annotated[int, Field(ge=1)] = 1
    """Started by `posttrain run` on this machine; torchrun and accelerate launch bring their own."""
    offload: bool = False
    """Keeps what is shared out in the CPU's memory: the optimizer's state, and the parameters of zero3 and fsdp2."""
    timeout: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds that a process waits for the others; then it says for whom, and the run ends."""

    @property
    def stage(self) -> int:
        """What is shared out: 0 nothing, 1 the optimizer's state, 2 gradients as well, 3 parameters as well."""
        return {"ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3, "fsdp2": 3}[self.mode]

    @property
    def by_deepspeed(self) -> bool:
        """DeepSpeed does it."""
        return self.mode.startswith("zero")

    @property
    def shares_parameters(self) -> bool:
        """No process holds the whole model: a forward pass is one that all make together."""
        return self.stage == 3

    @model_validator(mode="after")
    def _has_something_to_offload(self) -> DistributedConfig:
        if self.offload and self.mode == "ddp":
            raise ValueError("offload: ddp keeps everything on the device; take zero2, zero3 or fsdp2")
        return self
