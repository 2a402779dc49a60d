"""A process that believes in its device: the mode in every thread, and what goes past modes; and the phases of a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import CausalBias
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import _disable_current_modes
from transformers import Trainer

from gpu.mode import Pretended
from gpu.seen import OTHER, SAMPLING, STEP, Seen
from posttrain.rollout.hf import HFEngine
from posttrain.train.loop import Loop

PHASES = (
    (Trainer, "_run_epoch", STEP),
    (Trainer, "_maybe_log_save_evaluate", OTHER),
    (Loop, "_collected", OTHER),
    (HFEngine, "generate", SAMPLING),
)
"""All that a training loop does for a step is the step, but for collecting what it is made of, and for what is logged,
evaluated and saved after it."""


@contextmanager
def pretence(seen: Seen) -> Iterator[None]:
    """Tensors of CUDA are computed on the CPU in here, and `seen` is told of it."""
    _device_constructors()  # which torch lists when it first needs them: those that are replaced here must not be in it
    with _put((torch, "tensor", _noted(torch.tensor, seen)), (torch, "as_tensor", _noted(torch.as_tensor, seen)),
              (torch.cuda, "synchronize", _waited(torch.cuda.synchronize, seen)),
              (torch.cuda.Event, "synchronize", _waited(torch.cuda.Event.synchronize, seen)),
              (torch.cuda.Stream, "synchronize", _waited(torch.cuda.Stream.synchronize, seen)),
              (threading.Thread, "run", _believing(threading.Thread.run, seen)),
              (CausalBias, "__new__", _plain_bias)), Pretended(seen):  # fmt: skip
        yield


@contextmanager
def phases(seen: Seen) -> Iterator[None]:
    """The parts of a training are told apart; of each step the dtypes of weights and of the optimizer's state are noted."""
    replaced = [(owner, name, _phase(getattr(owner, name), seen, phase)) for owner, name, phase in PHASES]
    replaced.append((Loop, "training_step", _step(Loop.training_step, seen)))
    with _put(*replaced):
        yield


@contextmanager
def _put(*replaced: tuple[Any, str, Any]) -> Iterator[None]:
    before = [(owner, name, vars(owner).get(name), name in vars(owner)) for owner, name, _ in replaced]
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value, there in before:
            setattr(owner, name, value) if there else delattr(owner, name)


def _phase(inner: Callable[..., Any], seen: Seen, phase: str) -> Callable[..., Any]:
    @wraps(inner)
    def timed(*arguments: Any, **options: Any) -> Any:
        with seen.during(phase):
            return inner(*arguments, **options)

    return timed


def _step(inner: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    @wraps(inner)
    def step(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.vocabulary = self.model.get_output_embeddings().weight.shape[0]
        seen.weights |= {f"weights {parameter.dtype}" for parameter in self.model.parameters() if parameter.requires_grad}
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        seen.weights |= {f"optimizer {one.dtype}" for one in states if isinstance(one, Tensor) and one.dim()}
        seen.steps += 1
        return inner(self, *arguments, **options)

    return step


def _noted(make: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    """torch.tensor and torch.as_tensor copy behind every mode's back."""

    @wraps(make)
    def made(*arguments: Any, **options: Any) -> Any:
        device = options.get("device")
        if device is not None and torch.device(device).type == "cuda" and not isinstance(arguments[0], Tensor):
            seen.wait("copy from pageable memory")
        return make(*arguments, **options)

    return made


def _waited(inner: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    @wraps(inner)
    def waited(*arguments: Any, **options: Any) -> Any:
        seen.wait("synchronize")
        return inner(*arguments, **options)

    return waited


def _believing(run: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    """Modes are a thread's own: one that is started in here gets one."""

    @wraps(run)
    def believing(self: threading.Thread) -> None:
        with Pretended(seen):
            run(self)

    return believing


def _plain_bias(cls: type[Any], *_: Any) -> Any:
    """torch makes a causal bias by its legacy constructor, which no dispatch mode lives with."""
    with _disable_current_modes():
        return Tensor.__new__(cls)
