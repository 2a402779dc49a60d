"""vLLM as a rollout engine: its samples are one request each, and every sync of its weights is proved."""

from __future__ import annotations

import atexit
import copy
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from posttrain.distributed import ranks
from posttrain.errors import EngineError, SetupError
from posttrain.estimator.batch import Request
from posttrain.model.scoring import output_head
from posttrain.model.tokenizer import eos_ids
from posttrain.model.weights import Fingerprint, engine_weights, write_shards
from posttrain.rollout.engine import Completion, Sampling, check_requests, sample_seed
from posttrain.rollout.probe import Probe
from posttrain.rollout.transports import DiskTransport, TensorTransport, WeightTransport
from posttrain.rollout.vllm.backend import Answer, Ask, Backend, check_usable, sampling_options
from posttrain.settings.model import HEAD_SIZES
from posttrain.settings.rollout import VLLM_TEMPERATURE, VLLMConfig

FIRST_SYNCS = 10  # each of which has the whole proof
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class VLLMEngine:
    """A `RolloutEngine` over vLLM, in this process or as a server.

    It starts from a copy of the model's config with untied embeddings, since vLLM on CPU keeps a stale copy of a tied output
    layer through a sync; the weights come with the first `sync`.

    Args:
        model: whose weights are synced, cast to the config's dtype; as they are, float32 or bfloat16, where it has none.
        tokenizer: of the model.
        config: mode, transport, limits and deadlines.
        allow_remote: a server on another machine may be used.

    Raises:
        SetupError: vLLM is not installed or does not serve this model, or the server may not be used.
        EngineError: the server does not start or answer.
    """

    def __init__(self, model: Any, tokenizer: Any, config: VLLMConfig | None = None, *, allow_remote: bool = False) -> None:
        config = config or VLLMConfig()
        check_usable(config, allow_remote=allow_remote)
        self._dtype = output_head(model).weight.dtype if config.dtype is None else getattr(torch, config.dtype)
        if self._dtype not in DTYPES:
            raise SetupError(
                f"vLLM serves float32 and bfloat16; the model is in {self._dtype}. Set rollout.vllm.dtype, or engine: hf."
            )
        cpu = not torch.cuda.is_available()
        _check_heads(model.config, cpu=cpu)
        self._config, self._ends = config, eos_ids(model, tokenizer)
        self.version, self.probe_difference, self._syncs = -1, math.nan, 0
        self._known: tuple[int, dict[str, Answer]] | None = None
        self._backend: Backend | None = None
        self._shared = config.mode == "server" and ranks.world() > 1
        self._leads = not self._shared or ranks.rank() == 0
        self._folder = Path(tempfile.mkdtemp(prefix=f"posttrain-vllm-{os.getpid()}-"))
        atexit.register(self.close)
        try:
            _write_model(model, tokenizer, self._folder)
            if config.transport == "disk" and not config.addresses:
                write_shards(engine_weights(model, self._dtype), self._folder)
            self._backend = self._start(DTYPES[self._dtype], config, cpu=cpu)
            for copy_of_weights in self._folder.glob("model*.safetensors*"):
                copy_of_weights.unlink()
        except BaseException:
            self.close()
            raise
        self._transport: WeightTransport = TensorTransport(self._backend.rpc)
        if config.transport == "disk":
            target = Path(config.weights_folder) if config.weights_folder is not None else self._folder
            self._transport = DiskTransport(self._backend.rpc, target, self._folder)
        self._probe = Probe(len(tokenizer), self._backend.context, tokenizer.pad_token_id or 0)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        """See `RolloutEngine.generate`.

        Raises:
            EngineError: also before the first `sync`, and after one that failed.
        """
        if self.version < 0:
            raise EngineError("The engine has no weights of the trainer: call sync(model, version) first.")
        return self._generate(requests, sampling)

    def sync(self, model: Any, version: int) -> None:
        """See `RolloutEngine.sync`: sends the weights, forgets cached prefixes, and proves the result on the probe.

        Every engine's answer must be another than after the last sync, where the weights are others. In the first ten syncs,
        and at every `config.probe_every`-th, it is also scored by the model, and the cache holds the probe before.
        """
        backend, known = self._running(), self._known
        self.version, self._known = -1, None  # whatever fails below, nobody knows what the engine has
        scored = self._syncs < FIRST_SYNCS or self._syncs % self._config.probe_every == 0
        self._syncs += 1
        fingerprint, answers = Fingerprint(), dict[str, Answer]()
        weights = fingerprint.of(engine_weights(model, self._dtype))
        if self._leads:
            if scored:
                self._probed(tokens=1)  # what was computed with the weights of before is then in the cache
            self._transport.send(weights, version)
        for _ in weights:
            pass  # ranks that share a model gather it together, whoever sends it
        if self._leads:
            backend.reset_prefix_cache()
            answers = self._probed()
            backend.take_out(_unmoved(answers, known, fingerprint.value, version))
        ranks.barrier(f"the sync of the engine to version {version}")
        if self._shared:
            answers = ranks.broadcast(answers, "the probe's answers")
        if scored:
            completions = {name: self._completion(answer) for name, answer in answers.items()}
            self.probe_difference, faults = self._probe.check(
                model, completions, version, self._config.logp_bound, served=self._dtype
            )
            if self._leads:
                backend.take_out(faults)
        if self._shared:
            left = ranks.broadcast(backend.names, "the engines that are left")
            lost = (name for name in backend.names if name not in left)
            backend.take_out({name: EngineError(f"The first process cannot use the engine {name}.") for name in lost})
        self.version, self._known = version, (fingerprint.value, answers)

    def close(self) -> None:
        """Ends what was started, and removes what was written."""
        atexit.unregister(self.close)
        if self._backend is not None:
            self._transport.close()
            self._backend.close()
            self._backend = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, dtype: str, config: VLLMConfig, *, cpu: bool) -> Backend:
        """In this process; or servers for all ranks, which the first of them starts."""
        if config.mode == "in_process":
            from posttrain.rollout.vllm.in_process import InProcess

            return InProcess(self._folder, dtype, config, cpu=cpu)
        from posttrain.rollout.vllm.servers import start_servers

        servers = start_servers(self._folder, dtype, config, cpu=cpu) if self._leads else None
        urls = ranks.broadcast(servers.names if servers is not None else [], "the start of the vLLM servers")
        there = config.model_copy(update={"url": None, "urls": urls, "devices": []})
        return servers or start_servers(self._folder, dtype, there, cpu=cpu)

    def _running(self) -> Backend:
        if self._backend is None:
            raise EngineError("The engine was closed.")
        return self._backend

    def _generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        backend = self._running()
        check_requests(requests, sampling, backend.context)
        if sampling.temperature > VLLM_TEMPERATURE:
            raise ValueError(
                f"vLLM takes no temperature over {VLLM_TEMPERATURE:g}, and {sampling.temperature:g} was asked for"
            )
        asks = [
            Ask(
                [*request.prompt, *request.prefix],
                sampling.max_tokens - len(request.prefix),
                sample_seed(sampling, request.question, sample) >> 1,  # vLLM's are of 63 bits
            )
            for request in requests
            for sample in range(request.n)
        ]
        if not asks:
            return [[] for _ in requests]
        answers = iter(backend.submit(asks, sampling_options(sampling, self._ends)))
        return [[self._completion(next(answers)) for _ in range(request.n)] for request in requests]

    def _probed(self, tokens: int | None = None) -> dict[str, Answer]:
        """What each engine answers to the probe, alone: its bits depend on the weights, and on no neighbours."""
        sampling = self._probe.sampling
        ask = Ask(self._probe.prompt, tokens or sampling.max_tokens, sample_seed(sampling, 0, 0) >> 1)
        return self._running().each(ask, {**sampling_options(sampling, []), "ignore_eos": True})

    def _completion(self, answer: Answer) -> Completion:
        whole = len(answer.tokens) == len(answer.logprobs) > 0
        if not whole or not all(map(math.isfinite, answer.logprobs)):
            raise EngineError(
                f"vLLM gave {len(answer.tokens)} tokens and {len(answer.logprobs)} log-probs, or some that are not finite."
            )
        return Completion(answer.tokens, answer.logprobs, answer.finish, self.version)


def _unmoved(
    answers: dict[str, Answer], known: tuple[int, dict[str, Answer]] | None, fingerprint: int, version: int
) -> dict[str, EngineError]:
    """The fault of each engine that answers as before other weights came."""
    if known is None or known[0] == fingerprint:
        return {}
    return {
        name: EngineError(
            f"After the sync to version {version} the engine {name} answers the probe as before, to the last bit, though the "
            "trainer's weights have changed: it does not sample from the trainer's weights. The last checkpoint is whole."
        )
        for name, answer in answers.items()
        if known[1].get(name) == answer
    }


def _write_model(model: Any, tokenizer: Any, folder: Path) -> None:
    config = copy.deepcopy(model.config)
    config.tie_word_embeddings = False
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(folder)


def _check_heads(config: Any, *, cpu: bool) -> None:
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if cpu and size not in HEAD_SIZES:
        raise SetupError(f"vLLM on CPU serves heads of size {', '.join(map(str, HEAD_SIZES))}; this model's are {size}.")
