"""The collector of rollouts whose collections are made beside training."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import torch
from numpy.typing import NDArray

from posttrain.distributed import ranks
from posttrain.rollout.parcel import SendsParcels
from posttrain.telling import tell
from posttrain.train.collect.ahead.messages import VERSION, Delivery, Order, Work
from posttrain.train.collect.ahead.sampler import Ahead
from posttrain.train.collect.arrays import from_arrays, to_arrays
from posttrain.train.collect.collection import NOTHING, Collection


class AheadCollector:
    """Asks a sampler for each collection `ahead.by` collections before it is trained on, and then takes the one that is.

    Collection c is sampled from the weights of before collection max(c - by, 0): a function of (seed, step) and of the model,
    as without a sampler. What has been asked for is waited for and kept in checkpoints.

    Args:
        ahead: by how many, and the sampler.
        engine: makes parcels of the weights.
        work: of the sampler, but for its state.
        updates: optimizer steps of a collection.
        steps: of the run; what would come after them is not asked for.
    """

    def __init__(self, ahead: Ahead, engine: SendsParcels, work: Work, *, updates: int, steps: int) -> None:
        self._by, self._sampler, self._engine = ahead.by, ahead.sampler, engine
        self._work: Work | None = work
        self._updates, self._steps = updates, steps
        self._next = 0  # the first step that no collection has been asked for
        self._state: Mapping[str, Any] | None = None
        self._under_way: dict[int, Future[Delivery]] = {}  # by the step that each begins at; of the first rank

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """See `Collector`: the collection that begins at `step`, after the one that is to be sampled beside it was asked for.

        Raises:
            EngineError, RewardError: as `RolloutCollector.collect`; or the sampler ended.
        """
        last = min(step + self._by * self._updates, self._steps - 1)
        wanted = range(max(self._next, step), last + 1, self._updates)
        if wanted:
            self._ask(model, step, progress, wanted)
        for before in [begun for begun in self._under_way if begun < step]:
            del self._under_way[before]
        arrays, metrics = ranks.broadcast(
            self._taken(step) if ranks.is_main() else ({}, {}), f"the rollouts of step {step + 1}"
        )
        collection = _collection(arrays)
        return dataclasses.replace(collection, metrics={**collection.metrics, **metrics})

    def state(self) -> dict[str, Any]:
        """See `Collector`: what has been asked for, and the state of the sampler's collector after what it has delivered."""
        done = [future for future in self._under_way.values() if future.done() and future.exception() is None]
        return {"next": self._next, "sampler": done[-1].result().state if done else self._state}

    def kept(self) -> Collection | None:
        """See `Collector`: nothing."""
        return None

    def restore(
        self, state: Mapping[str, Any], ahead: Mapping[int, Collection] = NOTHING, kept: Collection | None = None
    ) -> None:
        """See `Collector`. What is under way here stays so."""
        self._next, self._state = max(self._next, state["next"]), state["sampler"]
        for step, collection in ahead.items():
            arrays = {name: array.numpy() for name, array in to_arrays(collection).items()}
            delivery = Delivery(arrays=arrays, state=state["sampler"], told=(), at=time.time())
            self._under_way[step] = Future()
            self._under_way[step].set_result(delivery)

    def ahead(self, step: int) -> dict[int, Collection]:
        """See `Collector`: waits for what has been asked for."""
        return {begun: _collection(self._delivered(begun).arrays) for begun in self._under_way if begun >= step}

    def _ask(self, model: Any, step: int, progress: float, wanted: range) -> None:
        """For collections from these weights: one, but for those of the start, and of a run that is longer now."""
        if step and len(wanted) > 1:
            tell(
                "ahead-again",
                f"rollout.ahead: what steps {wanted[0] + 1} to {wanted[-1] + 1} train on is sampled from the weights of "
                f"step {step}, and not from older ones: it lay beyond the end of the run when those were there.",
                step,
            )
        parcel = self._engine.parcel(model, step)  # all ranks together
        if (sampler := self._sampler) is not None:
            for begun in wanted:
                work, self._work = self._work, None
                if work is not None:
                    work = dataclasses.replace(work, state=self._state, served=self._engine.served())
                share = max(begun / self._steps, progress)
                self._under_way[begun] = sampler.order(Order(step=begun, progress=share, parcel=parcel, work=work))
        self._next = wanted[-1] + self._updates

    def _delivered(self, step: int) -> Delivery:
        assert self._sampler is not None  # only its rank has something under way
        return self._sampler.came_to(self._under_way[step])

    def _taken(self, step: int) -> tuple[Mapping[str, NDArray[Any]], dict[str, float]]:
        """What was delivered for a step; how long it was waited for or lay ready, and how old its weights are, in steps."""
        began = time.time()
        delivery = self._delivered(step)
        for told in delivery.told:
            tell(told.rule, told.sentence, step + 1)
        versions = delivery.arrays.get(VERSION)
        return delivery.arrays, {
            "rollout/waited_seconds": max(delivery.at - began, 0.0),
            "rollout/ready_seconds": max(began - delivery.at, 0.0),
            "rollout/lag": 0.0 if versions is None else step - float(versions.mean()),
        }


def _collection(arrays: Mapping[str, NDArray[Any]]) -> Collection:
    return from_arrays({name: torch.from_numpy(array) for name, array in arrays.items()})
