"""What a process holds of a model that is trained: the formula. `make memory-check` measures it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from posttrain.distributed.config import DistributedConfig

MASTER = 4  # bytes of a number of the copy that DeepSpeed updates, and of each of its moments


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes on each process, with AdamW. Activations, logits, the rollout engine and buffers of exchanges come on top."""

    weights: float
    gradients: float
    optimizer: float
    reference: float

    def __str__(self) -> str:
        return ", ".join(f"{name} {size / 1e9:.3g} GB" for name, size in asdict(self).items() if size)


def held(config: DistributedConfig, processes: int, *, parameters: int, trainable: int, number: int, reference: bool) -> Held:
    """By the mode, of P parameters of `number` bytes each, T of them trainable, on G processes.

    Weights are P·number, gradients T·number, and the optimizer T·2·number, or T·12 for DeepSpeed, whose float32 copy has its
    moments beside it. A mode divides by G what it shares out.

    Raises:
        ValueError: no processes.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}, expected at least 1")
    deepspeed = config.mode.startswith("zero") and processes > 1
    shared = {"ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3, "fsdp2": 3}[config.mode] if processes > 1 else 0
    weights = parameters * number / (processes if shared >= 3 else 1)
    return Held(
        weights=weights,
        gradients=trainable * number / (processes if shared >= 2 else 1),
        optimizer=trainable * (3 * MASTER if deepspeed else 2 * number) / (processes if shared >= 1 else 1),
        reference=weights if reference else 0,
    )
