"""What a process holds of a model that is trained: the formula, which `make memory-check` measures; and whether what comes on
top needs gradient checkpointing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass

import psutil
import torch

from posttrain.execution.memory.activations import Activations
from posttrain.settings.distributed import DistributedConfig

MASTER = 4  # bytes of a number of the copy that DeepSpeed updates
USABLE = 0.9  # of a device's memory: what is left over goes to its libraries, to gaps between tensors and to a wrong estimate


def of_adamw(number: int) -> float:
    """Bytes of both moments of a parameter of so many bytes."""
    return 2.0 * number


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes on each process. Activations, logits, the rollout engine and buffers of exchanges come on top."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    teacher: float = 0.0

    def __str__(self) -> str:
        return ", ".join(f"{name} {gigabytes(size)}" for name, size in asdict(self).items() if size)

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.reference + self.teacher


def held(
    config: DistributedConfig,
    processes: int,
    *,
    trained: int,
    number: int,
    frozen: float = 0,
    reference: float = 0,
    teacher: float = 0,
    copies: float = 0,
    state: Callable[[int], float] = of_adamw,
    on_device: bool = False,
) -> Held:
    """By the mode, of T trained parameters of `number` bytes each, on G processes; frozen ones, a reference, a teacher,
    and copies of trained ones that update rules keep, have so many bytes in all.

    Trained weights are T·number, gradients T·number, and the optimizer T·state(number), of AdamW T·2·number; for DeepSpeed
    T·(4 + state(4)), for it updates a float32 copy. A mode divides by G what it shares out; what it offloads is 0 where
    `on_device` asks for the rest.

    Raises:
        ValueError: no processes.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}, expected at least 1")
    deepspeed = config.by_deepspeed and processes > 1
    shared = config.stage if processes > 1 else 0
    share = 0.0 if on_device and config.offload else 1 / processes
    of_model = share if shared >= 3 else 1
    return Held(
        weights=(trained * number + frozen) * of_model,
        gradients=trained * number * (share if shared >= 2 else 1),
        optimizer=trained * (MASTER + state(MASTER) if deepspeed else state(number)) * (share if shared >= 1 else 1) + copies,
        reference=reference * of_model,
        teacher=teacher * of_model,
    )


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that a process may fill with its training, in bytes, and where it is."""

    size: float
    where: str

    def __str__(self) -> str:
        return f"{gigabytes(self.size)}: {self.where}"


def room(*, cuda: bool, processes: int, loaded: float, engine: float) -> Room:
    """What there is on a process's device.

    A GPU's memory is its process's, but for the share of an engine in the process. A machine's is what is free now and what
    the models that are loaded already take of it, divided among the processes on it.

    Args:
        cuda: it is a GPU, the current one.
        processes: on this machine, or that there will be.
        loaded: bytes of a model that each process which runs already has in the machine's memory.
        engine: the share of a GPU's memory that a rollout engine in the process takes.
    """
    if cuda:
        device = torch.cuda.get_device_properties(torch.cuda.current_device())
        beside = f", less {engine:g} for the rollout engine" if engine else ""
        return Room(device.total_memory * (1 - engine), f"{device.name}{beside}")
    running = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    processes = max(processes, running)
    free = psutil.virtual_memory().available + running * loaded
    among = f", of {processes} processes" if processes > 1 else ""
    return Room(free / processes, f"free in this machine{among}")


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """Whether layers are computed again in the backward pass, and why.

    `asked`: the recipe says so. `doubt`: the estimate says that a micro-batch does not fit so.
    """

    on: bool
    reason: str
    asked: bool = False
    doubt: bool = False

    def __str__(self) -> str:
        advice = "; lower training.micro_batch_tokens, share out the model (distributed.mode) or train an adapter"
        return f"{'on' if self.on else 'off'}: {self.reason}{advice if self.doubt else ''}"


def checkpointing(wanted: bool | None, kept: Held, passing: Activations | None, there: Room) -> Checkpointing:
    """As the recipe says; where it says nothing, on if a micro-batch would not find room without.

    Args:
        wanted: `training.gradient_checkpointing`.
        kept: what the process holds on its device.
        passing: what a micro-batch adds; None where nothing is known of it.
        there: the device.
    """
    if passing is None:
        reason = "there is no estimate for this model" if wanted is None else "the recipe says so"
        return Checkpointing(bool(wanted), reason, asked=wanted is not None)
    plain, again = (kept.total + size for size in (passing.plain, passing.checkpointed))
    limit = USABLE * there.size
    on = plain > limit if wanted is None else wanted
    needed = again if on else plain
    fits = f"{gigabytes(needed)} {'fit' if needed <= limit else 'do not fit'} into {USABLE:g} of the memory"
    if wanted is not None:
        return Checkpointing(on, f"the recipe says so, and about {fits}", asked=True, doubt=needed > limit)
    reason = f"about {fits}, and without it would be {gigabytes(plain)}" if on else f"about {fits} without it"
    return Checkpointing(on, reason, doubt=needed > limit)


def gigabytes(size: float) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.3g} GB"
