"""What ranks tell each other. Every exchange has a deadline, after which a rank says for whom it waits and ends.

With one rank each function is what it would be without `torch.distributed`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from posttrain.distributed.waiting import Waiting
from posttrain.errors import SetupError

T = TypeVar("T")
SLACK = 60.0  # seconds by which a collective's own deadline is later than ours, which says more
_state: dict[str, Any] = {"timeout": 1800.0}


def join(timeout: float, *, cpu: bool) -> None:
    """Joins the ranks that a launcher started, if there are several, before anything is loaded.

    Raises:
        SetupError: they cannot be reached.
    """
    _state["timeout"] = timeout
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        return
    if cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed warns where nobody says so
    else:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    deadline = timedelta(seconds=timeout + SLACK)
    try:
        dist.init_process_group("gloo" if cpu else "cpu:gloo,cuda:nccl", timeout=deadline)
    except (RuntimeError, ValueError) as error:
        raise SetupError(f"The processes of this run cannot reach each other: {error}") from error


def rank() -> int:
    """Of this process, 0 if it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """While entered, this rank may have to wait for the others, and says so when it has waited too long."""
    if world() == 1:
        yield
        return
    with Waiting(what, _state["timeout"], rank(), world()):
        yield


def all_gather(value: T, what: str) -> list[T]:
    """Every rank's value, in the order of the ranks."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    with waiting(what):
        dist.all_gather_object(values, value)
    return values


def broadcast(value: T, what: str) -> T:
    """Rank 0's value."""
    if world() == 1:
        return value
    box = [value]
    with waiting(what):
        dist.broadcast_object_list(box, src=0)
    return box[0]


def my_share(items: Sequence[T]) -> Sequence[T]:
    """This rank's share of them: every `world()`-th."""
    return items[rank() :: world()]


def all_shares(share: list[T], what: str) -> list[T]:
    """The results of all ranks for their shares, in the order of the items that `my_share` divided."""
    shares = all_gather(share, what)
    return [shares[i % len(shares)][i // len(shares)] for i in range(sum(map(len, shares)))]


def is_main() -> bool:
    """Whether this rank writes the run's files."""
    return rank() == 0


def barrier(what: str) -> None:
    """Returns when every rank has come here."""
    all_gather(None, what)


def all_of(flag: Tensor, what: str) -> Tensor:
    """Whether it is so on every rank, on the flag's device: the answer is not looked at."""
    if world() == 1:
        return flag
    least = flag.int()
    with waiting(what):
        dist.all_reduce(least, dist.ReduceOp.MIN)
    return least.bool()


def any_of(flag: bool, what: str) -> bool:
    """Whether it is so on a rank."""
    return flag if world() == 1 else any(all_gather(flag, what))
