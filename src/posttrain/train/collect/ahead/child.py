"""The sampler's own process: takes orders from a pipe and answers each with a delivery, or with what went wrong."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection

from posttrain.algorithms import built
from posttrain.distributed.signals import SIGNALS, end_with_parent
from posttrain.errors import PosttrainError
from posttrain.rewards.make import make_rewards
from posttrain.rollout.vllm.served import ServedEngine
from posttrain.telling import hearing
from posttrain.train.collect.ahead.messages import ALIVE, BEAT, Delivery, Order, Work
from posttrain.train.collect.arrays import to_arrays
from posttrain.train.collect.rollouts import RolloutCollector


class Workshop:
    """Makes the collections of a run, in the order in which they are asked for.

    Args:
        work: what of, and by what.
        closing: ends what was started.
    """

    def __init__(self, work: Work, closing: ExitStack) -> None:
        algorithm = built(work.algorithm)
        rewards = make_rewards(work.rewards, work.judged)
        for entry in rewards:
            closing.callback(entry.reward.close)
        self._engine = ServedEngine(work.served)
        self._collector = RolloutCollector(
            work.problems, algorithm, self._engine, rewards, work.sampling, work.tokenizer, **work.options
        )
        if work.state is not None:
            self._collector.restore(work.state)

    def make(self, order: Order) -> Delivery:
        """The collection, from the parcel's weights, which the servers are brought to unless they have them."""
        with hearing() as told:
            started = time.monotonic()
            if self._engine.version != order.parcel.version:
                self._engine.sync(order.parcel, order.parcel.version)
            synced = time.monotonic() - started
            collection = self._collector.sampled(order.step, order.progress, version=order.parcel.version, synced=synced)
        arrays = {name: array.numpy() for name, array in to_arrays(collection).items()}
        return Delivery(arrays=arrays, state=self._collector.state(), told=told, at=time.time())


@contextmanager
def beating(connection: Connection) -> Iterator[None]:
    """While entered, the trainer is told again and again that this process runs."""
    over = threading.Event()

    def beat() -> None:
        with suppress(OSError):  # the trainer is gone
            connection.send(ALIVE)
            while not over.wait(BEAT):
                connection.send(ALIVE)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def serve(connection: Connection) -> None:
    """Until the trainer is gone, or something went wrong."""
    workshop: Workshop | None = None
    with ExitStack() as closing:
        while True:
            try:
                order: Order = connection.recv()
            except EOFError:
                return
            try:
                with beating(connection):
                    if order.work is not None:
                        workshop = Workshop(order.work, closing)
                    assert workshop is not None  # the first order of a trainer brings its work
                    delivery = workshop.make(order)
                connection.send(delivery)
            except PosttrainError as error:
                connection.send(error)
            except Exception:
                connection.send(RuntimeError(f"in the sampler of rollout.ahead:\n{traceback.format_exc()}"))


if __name__ == "__main__":
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)  # the trainer says when it is over
    end_with_parent(int(sys.argv[2]), signal.SIGKILL)
    os.dup2(2, 1)  # what somebody prints is none of the trainer's output
    os.set_inheritable(int(sys.argv[1]), False)
    serve(Connection(int(sys.argv[1])))
