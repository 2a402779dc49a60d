"""vLLM's own weight transfer to a server: over CUDA IPC on the trainer's GPU, or over NCCL to others. Never run on a GPU."""

from __future__ import annotations

import base64
import contextlib
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from posttrain.errors import EngineError
from posttrain.model.weights import Described, Weights
from posttrain.rollout.vllm.server import Server
from posttrain.rollout.vllm.watchdog import Watchdog

PACKED_BYTES = 2**29  # of weights that travel together, as long as no tensor is larger


class Transfer:
    """A `WeightTransport` to one server. The two sides meet at the first `send`.

    NCCL cannot be broken off: what stands still for twice the deadline of a request ends the process, exit code 6.

    Args:
        way: ipc or nccl.
        server: whose `weight_transfer_config` names that way.
        described: what each `send` will bring, in its order.
        deadline: of a request, in seconds.
        clean_up: what is done before the process ends.
    """

    def __init__(
        self, way: str, server: Server, described: Sequence[Described], deadline: float, clean_up: Callable[[], None]
    ) -> None:
        self._way, self._server, self._deadline, self._clean_up = way, server, deadline, clean_up
        self._source, self._client = Source(described), Client(server)
        self._engine: Any = None
        self._whole = True

    def send(self, weights: Weights, version: int) -> None:
        """See `WeightTransport`."""
        with Watchdog(f"The transfer of weights by {self._way}", 2 * self._deadline, self._clean_up) as watchdog:
            self._whole, self._client.fault = False, None
            self._source.weights = self._watched(weights, watchdog)
            try:
                if self._engine is None:
                    self._engine = self._met()
                self._engine.send_weights()
            except EngineError:
                raise
            except Exception as error:
                raise self._client.fault or EngineError(
                    f"The transfer of weights by {self._way} to {self._server.url} failed: {type(error).__name__}: {error}"
                ) from error
            self._whole = True

    def close(self) -> None:
        """Lets the server meet another trainer."""
        if self._engine is not None and self._whole:
            self._engine.shutdown()
            with contextlib.suppress(EngineError):
                self._server.post("/shutdown_weight_transfer_engine", None)
        self._engine = None

    def _met(self) -> Any:
        from vllm.distributed.weight_transfer import (  # pyright: ignore[reportMissingImports]  # an extra
            WeightTransferTrainerFactory,
        )

        room = max(PACKED_BYTES, self._source.largest)
        options: dict[str, Any] = {"packed": True, "packed_buffer_size_bytes": room, "rank": 0}
        if self._way == "ipc":
            from vllm.distributed.weight_transfer.ipc_engine import (  # pyright: ignore[reportMissingImports]
                IPCTrainerInitInfo,
            )

            info: Any = IPCTrainerInitInfo(**options)
        else:
            from vllm.distributed.weight_transfer.nccl_engine import (  # pyright: ignore[reportMissingImports]
                NCCLTrainerInitInfo,
            )

            address, port = _here(self._server.url)
            info = NCCLTrainerInitInfo(address, port, 1 + self._server.get("/get_world_size")["world_size"], **options)
        sides: dict[str, Any] = {"client": self._client, "source": self._source}
        return WeightTransferTrainerFactory.trainer_init(info, **sides)

    def _watched(self, weights: Weights, watchdog: Watchdog) -> Weights:
        for entry in weights:
            if self._client.fault is not None:
                raise self._client.fault  # nobody is left to receive the rest
            watchdog.beat()
            yield entry


class Source:
    """vLLM's `WeightSource`: what will come, and what comes in a round."""

    def __init__(self, described: Sequence[Described]) -> None:
        self._described = list(described)
        self.weights: Weights = iter(())

    @property
    def largest(self) -> int:
        """Bytes of the largest tensor."""
        return max(one.dtype.itemsize * torch.Size(one.shape).numel() for one in self._described)

    def metadata(self) -> list[Described]:
        """See vLLM's `WeightSource`, whose `ParamMeta` has the same fields."""
        return self._described

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return self.weights


class Client:
    """vLLM's `VLLMWeightSyncClient`: the routes of a server, with our deadlines."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.fault: EngineError | None = None
        """Of an update that the server did not take, which runs in a thread beside the sending of its weights."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """The server's workers meet the trainer."""
        self._server.post("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        """A round begins."""
        self._server.post("/start_weight_update", None)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """The server takes the weights that are described, or to which there are handles."""
        body = dict(update_info)
        handles = body.pop("ipc_handles", None)
        if handles is not None:
            body["ipc_handles_pickled"] = base64.b64encode(pickle.dumps(handles)).decode()
        try:
            self._server.post("/update_weights", {"update_info": body})
        except EngineError as fault:
            self.fault = fault
            raise

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """All have come."""
        self._server.post("/finish_weight_update", None)


def _here(url: str) -> tuple[str, int]:
    """An address of this machine at which a server reaches it, and a free port."""
    host = urlsplit(url).hostname or ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((host, 9))  # sends nothing
        address = way.getsockname()[0]
    with socket.socket() as free:
        free.bind((address, 0))
        return address, free.getsockname()[1]
