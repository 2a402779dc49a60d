"""vLLM in the trainer's own process."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from posttrain.distributed import ranks
from posttrain.errors import EngineError, SetupError
from posttrain.rollout.vllm.backend import Answer, Ask, engine_arguments
from posttrain.rollout.vllm.watchdog import Watchdog
from posttrain.settings.rollout import VLLMConfig

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # tensors are handed over, and never pickled
    "VLLM_LOGGING_LEVEL": "CRITICAL",  # on an error it prints every request that was scheduled; the message comes to us
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB
}


class InProcess:
    """A `Backend` whose engine is stepped here, so that every step is a sign of life.

    Raises:
        SetupError: vLLM cannot be imported, or does not take the model.
    """

    def __init__(self, folder: Path, dtype: str, config: VLLMConfig, *, cpu: bool) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]  # an extra
                from vllm.sampling_params import RequestOutputKind  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise SetupError(f"vLLM is installed, and cannot be imported: {error}") from error
        several = ranks.world() > 1 and not cpu
        own = torch.device("cpu") if cpu else torch.device(torch.cuda.current_device())
        self._config = config
        self._params, self._final, self._ids = SamplingParams, RequestOutputKind.FINAL_ONLY, itertools.count()
        self._asleep = False
        self._deadline = config.start_deadline  # of the first answers as well: vLLM compiles some of itself for them
        self._clean_up = partial(shutil.rmtree, folder, ignore_errors=True)
        try:
            with Watchdog("vLLM, while it started,", config.start_deadline, self._clean_up):
                arguments: dict[str, Any] = {**engine_arguments(config, folder, dtype, cpu=cpu), **launched(several=several)}
                self._llm: Any = LLM(**arguments, disable_log_stats=True)
                [served] = self._llm.collective_rpc(_device)
        except Exception as error:
            raise SetupError(f"vLLM does not start with this model: {error}") from error
        check_device(torch.device(served), own)
        self.context: int = self._llm.llm_engine.model_config.max_model_len

    @property
    def names(self) -> list[str]:
        """See `Backend`."""
        return ["in_process"]

    def submit(self, asks: Sequence[Ask], options: dict[str, Any]) -> list[Answer]:
        """See `Backend`."""
        if self._asleep:
            raise EngineError("vLLM sleeps and has no weights: sync it before it is asked.")
        engine, numbers = self._llm.llm_engine, {str(next(self._ids)): i for i in range(len(asks))}
        options = {"detokenize": "stop" in options, "output_kind": self._final, **options}
        done: dict[int, Answer] = {}
        try:
            with Watchdog("vLLM", self._deadline, self._clean_up) as watchdog:
                for (name, _), ask in zip(numbers.items(), asks, strict=True):
                    params = self._params(**ask.options(options))
                    engine.add_request(name, {"prompt_token_ids": ask.prompt}, params)
                while engine.has_unfinished_requests():
                    for output in engine.step():
                        if output.finished:
                            done[numbers[output.request_id]] = _answer(output.outputs[0])
                    watchdog.beat()
        except Exception as error:
            raise EngineError(f"vLLM failed while it sampled: {type(error).__name__}: {error}") from error
        if len(done) < len(asks):
            raise EngineError(f"vLLM answered {len(done)} of {len(asks)} requests.")
        self._deadline = self._config.deadline
        return [done[i] for i in range(len(asks))]

    def each(self, ask: Ask, options: dict[str, Any]) -> dict[str, Answer]:
        """See `Backend`."""
        return dict(zip(self.names, self.submit([ask], options), strict=True))

    def take_out(self, faults: dict[str, EngineError]) -> None:
        """See `Backend`: there is no other."""
        for fault in faults.values():
            raise fault

    def rest(self) -> None:
        """See `Backend`: weights are dropped, not kept in the machine's memory, for others come before anything is asked."""
        if not self._asleep:
            with self._watched("sleep"):
                self._llm.sleep(level=2)
            self._asleep = True

    def rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        """See `Backend`. An engine that rests wakes: room for weights first, and for its cache when they are there."""
        with self._watched(method):
            if self._asleep and torch.cuda.is_available():
                torch.cuda.empty_cache()  # of what the trainer has freed
            if self._asleep:
                self._llm.wake_up(["weights"])
            self._llm.collective_rpc(method, kwargs=kwargs)
            if self._asleep:
                self._llm.wake_up(["kv_cache"])
                if self._llm.llm_engine.is_sleeping():
                    raise RuntimeError("it does not wake")  # and would take requests, and answer none
        self._asleep = False

    def reset_prefix_cache(self) -> None:
        """See `Backend`."""
        if not self._llm.reset_prefix_cache():
            raise EngineError("vLLM did not reset its prefix cache: completions would come of old weights.")

    @contextlib.contextmanager
    def _watched(self, what: str) -> Iterator[None]:
        try:
            with Watchdog(f"vLLM, in {what},", self._deadline, self._clean_up):
                yield
        except Exception as error:
            raise EngineError(f"vLLM failed in {what}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Frees the engine's memory."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None


def launched(*, several: bool) -> dict[str, str]:
    """vLLM's arguments where processes were started that each have a GPU: without them every engine takes the first."""
    return {"distributed_executor_backend": "external_launcher"} if several else {}


def check_device(served: torch.device, own: torch.device) -> None:
    """Raises:
    SetupError: the engine is on another device than the trainer's.
    """
    if (served.type, served.index or 0) != (own.type, own.index or 0):
        raise SetupError(
            f"vLLM's engine is on {served}, and this process trains on {own}: all engines would share one GPU. Take "
            "vllm: {mode: server}, or one process."
        )


def _device(worker: Any) -> str:
    return str(worker.device)


def _answer(output: Any) -> Answer:
    tokens = tuple(output.token_ids)
    logprobs = tuple(at[token].logprob for at, token in zip(output.logprobs, tokens, strict=True))
    return Answer(tokens, logprobs, "length" if output.finish_reason == "length" else "stop")
