"""The process that makes collections, as the trainer sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from multiprocessing import Pipe
from typing import Any, TypeVar

from posttrain.algorithms.options import AlgorithmConfig
from posttrain.errors import EngineError
from posttrain.rewards.options import Judged, RewardConfig
from posttrain.settings.rollout import VLLMConfig
from posttrain.telling import tell
from posttrain.train.collect.ahead.messages import ALIVE, VERSION, Delivery, Order

T = TypeVar("T")
MODULE = "posttrain.train.collect.ahead.child"
OF_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")  # of the trainers' processes, which it is none of
LOOK = 0.5  # seconds between two looks at whether it gives signs of life
TOLD_AFTER = 0.1  # of the seconds after which it counts as hung: then it is told that it gives none


class Sampler:
    """A process without a GPU, started at once and ended by the kernel with the trainer.

    It is sent one order at a time, by a thread: a signal that breaks the trainer's waiting off leaves every message whole.

    Args:
        vllm: its deadlines are the sampler's as well: to start, and then without a sign of life.

    Raises:
        EngineError: (from `Future.result`) the process ended; or what went wrong in it, as the error that it was.
    """

    def __init__(self, vllm: VLLMConfig) -> None:
        self._connection, theirs = Pipe()
        self._start_deadline, self._deadline, self._beats = vllm.start_deadline, vllm.deadline, 0
        environment = {name: value for name, value in os.environ.items() if name not in OF_RANKS}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(theirs.fileno()), str(os.getpid())],
                env={**environment, "CUDA_VISIBLE_DEVICES": ""},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,  # what a terminal sends to the trainer's is not for it
            )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampler")

    def order(self, order: Order) -> Future[Delivery]:
        """Is carried out when those before it are."""
        return self._thread.submit(self._exchange, order)

    def came_to(self, order: Future[T]) -> T:
        """The result of an order, which is waited for as long as the process gives signs of life.

        Raises:
            EngineError: it gave none for too long, and was ended.
        """
        heard, silent, told = self._beats, 0.0, False  # counted while it is waited for: the trainer may have been stopped too
        while wait([order], LOOK).not_done:
            silent = 0.0 if self._beats != heard else silent + LOOK
            heard = self._beats
            limit = self._deadline if heard else self._start_deadline
            if silent >= limit:
                self._process.kill()
                raise EngineError(
                    f"The sampler of rollout.ahead gave no sign of life for {limit:g} s: it was stopped, or hangs. It was "
                    "ended. The last checkpoint is whole; the same command goes on from it."
                )
            if silent >= TOLD_AFTER * limit and not told:
                told = True
                tell(
                    "sampler-silent",
                    f"The sampler of rollout.ahead has given no sign of life for {TOLD_AFTER * limit:g} s; the run waits for "
                    f"it, and ends when it is silent for {limit:g} s. Is its process ({self._process.pid}) stopped?",
                )
        return order.result()

    def rest(self) -> None:
        """Returns when nothing is under way."""
        self.came_to(self._thread.submit(int))

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._thread.shutdown(cancel_futures=True)
        self._process.wait()
        self._connection.close()

    def _exchange(self, order: Order) -> Any:
        try:
            self._connection.send(order)
            while (answer := self._connection.recv()) == ALIVE:
                self._beats += 1
        except (EOFError, OSError):
            raise EngineError(
                f"The sampler of rollout.ahead ended with {self._process.wait()}. The last checkpoint is whole; the same "
                "command goes on from it."
            ) from None
        if isinstance(answer, BaseException):
            raise answer
        versions, version = answer.arrays.get(VERSION), order.parcel.version
        came = {order.step} if versions is None else {*versions.flat}
        if came != {version}:
            raise EngineError(
                f"The rollouts of step {order.step + 1} are from weights of steps {came}, and those of step {version} were "
                "asked for. The last checkpoint is whole."
            )
        return answer


class Ahead:
    """That collections are made `by` many ahead, and what a sampler must know that a trainer does not.

    Args:
        by: collections.
        algorithm: the config of the trainer's.
        rewards: the configs of its rewards.
        judged: what they judge.
        vllm: whose servers sample.
        leads: this process has the sampler; of several ranks one.
    """

    def __init__(
        self,
        by: int,
        algorithm: AlgorithmConfig,
        rewards: Sequence[RewardConfig],
        judged: Judged,
        vllm: VLLMConfig,
        *,
        leads: bool = True,
    ) -> None:
        self.by, self.algorithm, self.rewards, self.judged = by, algorithm, rewards, judged
        self.sampler = Sampler(vllm) if leads else None

    def rest(self) -> None:
        """Returns when nothing is sampled, so that the engine can be used for something else."""
        if self.sampler is not None:
            self.sampler.rest()

    def close(self) -> None:
        """Ends the sampler."""
        if self.sampler is not None:
            self.sampler.close()
