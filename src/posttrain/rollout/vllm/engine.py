"""vLLM as a rollout engine: its samples are one request each, and every sync of its weights is proved."""

from __future__ import annotations

import atexit
import copy
import math
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from posttrain.distributed import ranks
from posttrain.errors import EngineError, SetupError
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.model.scoring import output_head
from posttrain.model.weights import Fingerprint, described_weights, engine_weights, write_shards
from posttrain.rollout.parcel import Parcel, Served
from posttrain.rollout.probe import Probe, bound_of
from posttrain.rollout.transports import DiskTransport, TensorTransport, WeightTransport
from posttrain.rollout.vllm.backend import Answer, Backend, check_usable
from posttrain.rollout.vllm.client import VLLMClient, unmoved
from posttrain.settings.model import HEAD_SIZES
from posttrain.settings.rollout import VLLMConfig

FIRST_SYNCS = 10  # each of which has the whole proof
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class VLLMEngine(VLLMClient):
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
        super().__init__(eos_ids(model, tokenizer))
        self._config, self._vocabulary, self.probe_difference, self._syncs = config, len(tokenizer), math.nan, 0
        self._rested = False
        self._known: tuple[int, dict[str, Answer]] | None = None
        self._shared = config.mode == "server" and ranks.world() > 1
        self._leads = not self._shared or ranks.rank() == 0
        self._folder = Path(tempfile.mkdtemp(prefix=f"posttrain-vllm-{os.getpid()}-"))
        atexit.register(self.close)
        try:
            _write_model(model, tokenizer, self._folder)
            if config.transport == "disk" and not config.addresses:
                write_shards(engine_weights(model, self._dtype), self._folder)
            backend = self._start(DTYPES[self._dtype], config, cpu=cpu)
            try:
                self._transport = self._transport_to(backend, model)
            except BaseException:
                backend.close()
                raise
            self._backend = backend
            for copy_of_weights in self._folder.glob("model*.safetensors*"):
                copy_of_weights.unlink()
        except BaseException:
            self.close()
            raise
        self._probe = Probe(self._vocabulary, backend.context, tokenizer.pad_token_id or 0)

    def sync(self, model: Any, version: int) -> None:
        """See `RolloutEngine.sync`: sends the weights, forgets cached prefixes, and proves the result on the probe.

        Every engine's answer must be another than after the last sync, where the weights are others. In the first ten syncs,
        and at every `config.probe_every`-th, it is also scored by the model, and the cache holds the probe before.
        """
        backend, known = self._running(), self._known
        self.version, self._known = -1, None  # whatever fails below, nobody knows what the engine has
        scored = self._is_scored()
        fingerprint, answers = Fingerprint(), dict[str, Answer]()
        weights = fingerprint.of(engine_weights(model, self._dtype))
        if self._leads:
            if scored and not self._rested:
                self._probed(tokens=1)  # what was computed with the weights of before is then in the cache
            self._transport.send(weights, version)
        for _ in weights:
            pass  # ranks that share a model gather it together, whoever sends it
        if self._leads:
            backend.reset_prefix_cache()
            answers = self._probed()
            backend.take_out(unmoved(answers, known, fingerprint.value, version))
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
        self._rested = False

    def rest(self) -> None:
        """See `Resting`: with `sleep` the engine's memory is free until the next `sync`; its cache is then empty."""
        if self._config.sleep and not self._rested:
            self.version, self._rested = -1, True
            self._running().rest()

    def served(self) -> Served:
        """See `SendsParcels`.

        Raises:
            SetupError: vLLM runs in this process.
        """
        if not isinstance(self._transport, DiskTransport) or self._config.mode != "server":
            raise SetupError("Another process can use vLLM servers with weights: disk: take VLLMConfig(mode='server').")
        there = {"url": None, "urls": self._running().names, "devices": []}
        return Served(config=self._config.model_copy(update=there), ends=self._ends, vocabulary=self._vocabulary)

    def parcel(self, model: Any, version: int) -> Parcel:
        """See `SendsParcels`. What this engine knew of its servers holds no more."""
        self.version = -1
        assert isinstance(self._transport, DiskTransport)  # `served` has said so
        fingerprint = Fingerprint()
        weights = fingerprint.of(engine_weights(model, self._dtype))
        folder = self._transport.write(weights, version) if self._leads else self._folder
        for _ in weights:
            pass  # as in `sync`
        return Parcel(
            folder=folder,
            version=version,
            fingerprint=fingerprint.value,
            expected=self._probe.expected(model).numpy() if self._is_scored() else None,
            bound=bound_of(model, self._config.logp_bound, self._dtype),
        )

    def _is_scored(self) -> bool:
        """Whether the sync that begins now has the whole proof."""
        self._syncs += 1
        return self._syncs <= FIRST_SYNCS or (self._syncs - 1) % self._config.probe_every == 0

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

    def _transport_to(self, backend: Backend, model: Any) -> WeightTransport:
        config = self._config
        if config.transport == "tensors":
            return TensorTransport(backend.rpc)
        if config.transport == "disk":
            target = Path(config.weights_folder) if config.weights_folder is not None else self._folder
            return DiskTransport(backend.rpc, target, self._folder)
        from posttrain.rollout.vllm.servers import Servers
        from posttrain.rollout.vllm.transfer import Transfer

        assert isinstance(backend, Servers)  # VLLMConfig lets nothing else be
        [server] = backend.running
        clean_up = partial(shutil.rmtree, self._folder, ignore_errors=True)
        return Transfer(config.transport, server, described_weights(model, self._dtype), config.deadline, clean_up)


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
