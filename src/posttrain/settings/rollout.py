"""What a recipe says of its rollouts. No torch or vLLM here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from posttrain.settings.base import Config, NonNegative, Positive, is_address, is_here
from posttrain.settings.model import Compute

Count = Annotated[int, Field(ge=1)]


class VLLMConfig(Config):
    """How vLLM is run: in this process, as a server that is started and ended with the run, or one that is there already."""

    mode: Literal["in_process", "server"] = "in_process"
    """In the process of the trainer, or as a server."""
    url: str | None = None
    """Of a server that runs already; it must have been started with VLLM_SERVER_DEV_MODE=1 and read `weights_folder`."""
    urls: list[str] = []
    """Of several such servers: what is asked is spread over them, and one that fails is taken out for the rest of the run."""
    devices: list[Annotated[int, Field(ge=0)] | Literal["cpu"]] = []
    """A server is started for each: GPUs, by their numbers among those that the run sees, or `cpu`, as often as wanted."""
    weights: Literal["tensors", "disk", "ipc", "nccl"] | None = None
    """How new weights reach it: tensors, handed over in the process; disk, a safetensors folder that a server loads again;
    ipc, to a server on the trainer's GPU, and nccl, to one on others, by vLLM's own transfer (never run on a GPU)."""
    weights_folder: str | None = None
    """For `disk`: a folder that trainer and engine both see; a temporary one where it is not set."""
    dtype: Compute | None = None
    """Of the weights that it serves, which are cast on their way; model.compute if not set."""
    tensor_parallel_size: Count = 1
    """GPUs among which the model is split."""
    max_model_len: Count | None = None
    """Tokens of prompt and answer together; the model's own limit if not set."""
    max_num_seqs: Annotated[int, Field(ge=2)] = 256
    """Sequences at a time; a server keeps one place free, to be asked whether it is alive."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.4
    """The share of a GPU's memory that the engine takes."""
    prefix_caching: bool = True
    """Keep what a prompt's beginning was computed to, for others that begin alike."""
    deadline: Positive = 300.0
    """Seconds without any progress after which the engine counts as hung."""
    start_deadline: Positive = 900.0
    """Seconds for the engine to start; in the process, for its first answers as well, for which it compiles."""
    logp_bound: Positive | None = None
    """Largest difference, in nats, between the engine's and the trainer's log-probs of the probe after a sync; by the
    dtype if not set."""
    probe_every: Count = 10
    """Syncs between two whole proofs of the weights, after the first ten, each of which has one; 1: every sync has one."""
    sleep: bool = False
    """Give the engine's memory back while the trainer works: weights and cache are dropped, and weights come anew with the
    next sync. In the process, on a GPU (never run on a GPU)."""

    @property
    def transport(self) -> Literal["tensors", "disk", "ipc", "nccl"]:
        """How new weights reach the engine."""
        return self.weights or ("tensors" if self.mode == "in_process" else "disk")

    @property
    def transfers(self) -> bool:
        """Whether weights go by vLLM's own transfer."""
        return self.transport in ("ipc", "nccl")

    @property
    def beside_the_trainer(self) -> bool:
        """Whether it has its part of the trainer's GPU while there is training."""
        return self.transport == "ipc" or (self.mode == "in_process" and not self.sleep)

    @property
    def addresses(self) -> list[str]:
        """Of the servers that run already."""
        return self.urls or ([self.url] if self.url is not None else [])

    @property
    def remote(self) -> list[str]:
        """The addresses that are on another machine, or may be."""
        return [url for url in self.addresses if not is_here(url)]

    @model_validator(mode="after")
    def _can_be_done(self) -> VLLMConfig:
        if self.sleep and self.mode != "in_process":
            raise ValueError("sleep: an engine in the process gives its memory to the trainer; a server keeps its own")
        if self.url is not None and self.urls:
            raise ValueError("url and urls: give one of them")
        key = "urls" if self.urls else "url"
        if self.addresses and self.mode != "server":
            raise ValueError(f"{key} is of a server: set mode: server")
        for url in self.addresses:
            try:
                is_address(url)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
        if len({url.rstrip("/") for url in self.addresses}) < len(self.addresses):
            raise ValueError("urls: one stands there twice")
        if self.addresses and self.transport == "disk" and self.weights_folder is None:
            raise ValueError(f"{key}: a server that runs already takes its weights from weights_folder, which it must see")
        if self.devices and (self.mode != "server" or self.addresses):
            raise ValueError("devices are of servers that the run starts: they need mode: server, and neither url nor urls")
        on_gpus = [device for device in self.devices if device != "cpu"]
        if len(on_gpus) not in (0, len(self.devices)) or len(set(on_gpus)) < len(on_gpus):
            raise ValueError("devices: numbers of GPUs, each once, or cpu as often as servers are wanted; not both")
        if self.devices and self.tensor_parallel_size > 1:
            raise ValueError("devices: one server for each; to split a model over GPUs take tensor_parallel_size without it")
        if self.mode == "in_process" and self.transport == "tensors" and self.tensor_parallel_size > 1:
            raise ValueError("weights: tensors reach one worker; with tensor_parallel_size over 1 take weights: disk")
        if self.mode == "server" and self.weights == "tensors":
            raise ValueError("weights: tensors go to an engine in the process; a server takes disk")
        if self.transfers:
            self._check_transfer()
        return self

    def _check_transfer(self) -> None:
        way = f"weights: {self.transport}"
        if self.mode == "in_process":
            raise ValueError(f"{way} goes from one process to another; an engine in the process is handed tensors")
        if len(self.addresses) > 1 or len(self.devices) > 1:
            raise ValueError(f"{way} goes to one server; several take disk")
        if "cpu" in self.devices:
            raise ValueError(f"{way} goes between GPUs; a server on a CPU takes disk")
        if self.weights_folder is not None:
            raise ValueError(f"weights_folder is of weights: disk; {way} writes nothing")
        if self.transport == "ipc" and self.addresses:
            raise ValueError("weights: ipc goes to a server that the run starts; one that is there takes nccl or disk")
        if self.transport == "ipc" and self.tensor_parallel_size > 1:
            raise ValueError("weights: ipc reaches one GPU; with tensor_parallel_size over 1 take disk")
        if self.transport == "nccl" and not self.addresses and not self.devices:
            raise ValueError("weights: nccl goes to a GPU that nobody trains on: give it as devices: [NUMBER], or a url")


class HFConfig(Config):
    """How transformers samples from the model in memory."""

    batching: Literal["loop", "continuous"] = "loop"
    """loop: a batch at a time, with a stream of random numbers for each sample. continuous: transformers' own, paged and
    filled up as rows end; one stream for all, so that an answer depends on its neighbours."""


VLLM_TEMPERATURE = 2.0  # vLLM takes no higher one


class Sampled(Config):
    """How an answer is sampled, for training and for evaluation."""

    temperature: NonNegative = 1.0
    """0 is greedy, in evaluations only."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the most probable tokens that have this probability together; 1: of all."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Of the most probable tokens; 0: of all."""
    max_tokens: Count = 256
    """Of an answer, at most."""
    stop: list[str] = []
    """Texts that end an answer, and are part of it."""


class SamplingConfig(Sampled):
    """How completions are sampled, and by what."""

    engine: Literal["hf", "vllm"] = "hf"
    """hf: transformers, in the process, no GPU needed. vllm: vLLM."""
    hf: HFConfig = HFConfig()
    """How transformers samples, for engine: hf."""
    vllm: VLLMConfig = VLLMConfig()
    """How vLLM is run, for engine: vllm."""
    temperature: Positive = 1.0
    """Above 0: what is trained on is sampled."""

    @model_validator(mode="after")
    def _settings_are_of_the_engine(self) -> SamplingConfig:
        if self.engine != "vllm" and self.vllm != VLLMConfig():
            raise ValueError(f"vllm: its settings need engine: vllm, and it is {self.engine}")
        if self.engine != "hf" and self.hf != HFConfig():
            raise ValueError(f"hf: its settings need engine: hf, and it is {self.engine}")
        if self.engine == "vllm" and self.temperature > VLLM_TEMPERATURE:
            raise ValueError(f"temperature: vLLM takes no more than {VLLM_TEMPERATURE:g}, not {self.temperature:g}")
        return self


class PairsConfig(Config):
    """Which of a question's completions are preference pairs. One whose chosen side is judged lower is none."""

    rule: Literal["best_worst", "all", "demonstration", "fixed_rejected"] = "best_worst"
    """best_worst: the highest reward against the lowest, none where they are equal. all: every completion against every one
    of a lower reward. demonstration: the question's demonstration against completions. fixed_rejected: completions, those of
    the highest rewards first, against the question's column `rejected`."""
    at_most: Count | None = None
    """Pairs of a question; all that the rule makes if not set."""


class ReplayConfig(Config):
    """Rollouts of earlier collections, with the log-probs that they were sampled with, beside those of later ones."""

    size: Count = 256
    """Questions whose rollouts are stored, at most; the oldest leave first."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Of the questions of a step those that come from the store, at most; they come in addition to those that are asked."""
    filter: Literal["right", "all"] = "right"
    """right: questions with a right rollout and a wrong one are stored, and of them the right ones alone carry loss; the
    others count in the baseline. all: all."""


class RolloutConfig(SamplingConfig):
    """How completions are sampled for training."""

    questions_per_step: Count = 32
    """Questions of each collection; `training.rows_per_step` says how many of its rollouts an optimizer step takes."""
    n: Count = 8
    """Completions for each question."""
    mask_cut_off: bool = False
    """Take completions that max_tokens cut off out of the loss; they stay in their group's baseline."""
    resamples: Annotated[int, Field(ge=0)] = 8
    """Rounds in which groups without signal are replaced by other questions, where the algorithm asks for it."""
    pairs: PairsConfig | None = None
    """For losses of preference pairs: makes them of what is sampled (online DPO); without it they are data."""
    replay: ReplayConfig | None = None
    """Store rollouts, and train on some of them again in later collections; none are if not set."""
    log_completions: Annotated[int, Field(ge=0)] = 10
    """Collections between two tables of completions on the terminal; 0: none."""
    ahead: Annotated[int, Field(ge=0)] = 0
    """Collections that are sampled beside training, in a process of their own: each from weights that are so many collections
    old, exactly; 0: sampling and training take turns."""

    @property
    def rows(self) -> int:
        """Rollouts of a collection."""
        return self.questions_per_step * self.n

    @model_validator(mode="after")
    def _is_sampled_beside_training(self) -> RolloutConfig:
        if not self.ahead:
            return self
        there = {
            f"engine: {self.engine}": self.engine != "vllm",
            f"vllm.mode: {self.vllm.mode}": self.vllm.mode != "server",
            f"vllm.weights: {self.vllm.weights}": self.vllm.transport != "disk",
        }
        if any(there.values()):
            raise ValueError(
                f"ahead: {self.ahead} samples beside training, by servers that load weights from a folder, and "
                f"{next(key for key, other in there.items() if other)} is something else: take engine: vllm with vllm: "
                "{mode: server, weights: disk}"
            )
        return self
