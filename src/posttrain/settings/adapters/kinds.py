"""The kinds of adapters of peft that are offered, a line for each with its facts; and those that are not, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Start = Literal["same", "rounded", "elsewhere"]
"""What a model with a fresh adapter is, beside the model without: the same to the last bit; the same but for rounding;
another one."""


@dataclass(frozen=True, slots=True)
class AdapterKind:
    """One kind, whose config class of peft stands in peft/tuners/`module`/config.py."""

    name: str
    module: str
    config: str
    start: Start = "same"
    targets: Literal["all-linear"] | None = "all-linear"
    """The modules that get one if the recipe does not say; None: peft's choice for the architecture."""
    fixed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of peft that make the kind what it is."""
    preset: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of peft that have another default here."""
    ranked: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of peft that give way where `r` is set."""


LORA = "lora"
KINDS: tuple[AdapterKind, ...] = (
    AdapterKind(LORA, "lora", "LoraConfig"),
    AdapterKind("dora", "lora", "LoraConfig", fixed={"use_dora": True}),
    AdapterKind("rslora", "lora", "LoraConfig", fixed={"use_rslora": True}),
    AdapterKind("boft", "boft", "BOFTConfig"),
    AdapterKind("c3a", "c3a", "C3AConfig", start="elsewhere"),
    AdapterKind("deft", "deft", "DeftConfig", start="rounded"),
    AdapterKind("delora", "delora", "DeloraConfig"),
    AdapterKind("fourierft", "fourierft", "FourierFTConfig", preset={"init_weights": True}),
    AdapterKind("frod", "frod", "FrodConfig", start="rounded", preset={"progressbar": False}),
    AdapterKind("glora", "glora", "GloraConfig"),
    AdapterKind("gralora", "gralora", "GraloraConfig"),
    AdapterKind("hira", "hira", "HiraConfig"),
    AdapterKind("hra", "hra", "HRAConfig", start="rounded"),
    AdapterKind("ia3", "ia3", "IA3Config", targets=None),
    AdapterKind("ln_tuning", "ln_tuning", "LNTuningConfig", targets=None),
    AdapterKind("loha", "loha", "LoHaConfig"),
    AdapterKind("lokr", "lokr", "LoKrConfig"),
    AdapterKind("miss", "miss", "MissConfig"),
    AdapterKind("oft", "oft", "OFTConfig", ranked={"oft_block_size": 0}),
    AdapterKind("osf", "osf", "OSFConfig", start="rounded"),
    AdapterKind("peanut", "peanut", "PeanutConfig"),
    AdapterKind("psoft", "psoft", "PsoftConfig"),
    AdapterKind("pvera", "pvera", "PveraConfig"),
    AdapterKind("randlora", "randlora", "RandLoraConfig"),
    AdapterKind("road", "road", "RoadConfig"),
    AdapterKind("shira", "shira", "ShiraConfig"),
    AdapterKind("supertuning", "supertuning", "SupertuningConfig"),
    AdapterKind("tinylora", "tinylora", "TinyLoraConfig"),
    AdapterKind("trainable_tokens", "trainable_tokens", "TrainableTokensConfig", targets=None),
    AdapterKind("unilora", "unilora", "UniLoraConfig", start="elsewhere"),
    AdapterKind("vblora", "vblora", "VBLoRAConfig", start="elsewhere"),
    AdapterKind("vera", "vera", "VeraConfig"),
    AdapterKind("waveft", "waveft", "WaveFTConfig"),
)
BY_NAME = {kind.name: kind for kind in KINDS}

_PROMPTS = (
    "it puts virtual tokens before a row, which no weight can hold: rows could not be packed, nor engines be sent the model"
)
REFUSED = {
    **dict.fromkeys(
        ("prompt_tuning", "p_tuning", "prefix_tuning", "multitask_prompt_tuning", "cpt", "cartridge", "adaption_prompt"),
        _PROMPTS,
    ),
    "adalora": "its ranks are given out anew by a call after each step, which is not made here; take lora with rank_pattern",
    "adamss": "its subspaces are made by scikit-learn, which is no requirement, and it has not been proved here",
    "beft": "it trains the biases of layers, which the layers of most language models have not",
    "lily": "peft cannot merge it into the weights, which engines and final/ need",
    "poly": "it wants a task's number with each row, which a model after training would not be given",
    "shadow": "it is a second model beside the first, which cannot be merged into the weights",
    "xlora": "it mixes adapters anew for each input, which cannot be merged into the weights",
}
"""Kinds of peft that are not offered, and why."""

CHANGED_BASE = ("pissa", "olora")
"""Inits of LoRA that take what the adapter begins with out of the base (`pissa_niter_N` as well)."""
INITS = ("gaussian", "orthogonal", "mica", *CHANGED_BASE)
"""Inits of LoRA that need nothing but the weights."""
REFUSED_INITS = {
    "corda": "it needs products of activations on sample rows, by peft's preprocess_corda, before the adapter is made",
    "eva": "it needs activations on sample rows, by peft's initialize_lora_eva_weights, before training",
    "loftq": "it rounds the base in its own way, and has not been proved here; model.quantization goes with gaussian",
    "lora_ga": "it needs gradients on sample rows, by peft's preprocess_loraga, before the adapter is made",
}

OWN_FIELDS = (
    "task_type",
    "inference_mode",
    "base_model_name_or_path",
    "revision",
    "peft_type",
    "auto_mapping",
    "peft_version",
)
"""Of a config of peft: set by posttrain or by peft."""
REFUSED_OPTIONS = {
    "alora_invocation_tokens": "such an adapter is there from some token of a row on, which no weight can hold",
    "arrow_config": "it mixes adapters anew for each input, which no weight can hold",
    "bias": "it trains biases of the base, which an adapter that is switched off would leave changed",
    "corda_config": REFUSED_INITS["corda"],
    "eva_config": REFUSED_INITS["eva"],
    "kasa_config": "it changes the base for good, and has not been proved here",
    "layer_replication": "the model would have other layers than its base",
    "loftq_config": REFUSED_INITS["loftq"],
    "lora_bias": "peft merges it into a bias that most layers have not",
    "lora_ga_config": REFUSED_INITS["lora_ga"],
    "megatron_config": "it is of Megatron's layers",
    "megatron_core": "it is of Megatron's layers",
    "monteclora_config": "it draws weights anew in each pass and adds to the loss, which is the algorithm's",
    "qalora_group_size": "it is of a base that GPTQ has quantised, which cannot be had; model.quantization takes plain LoRA",
    "runtime_config": "it says where an adapter runs, which posttrain does",
    "target_parameters": "it is of experts' parameters, and has not been proved here",
    "use_bdlora": "it is of engines that share out an adapter, and has not been proved here",
    "use_qalora": "it is of a base that GPTQ has quantised, which cannot be had; model.quantization takes plain LoRA",
    "velora_config": "peft saves no direction that it takes of the first batch, so that a run could not go on as it was",
}
"""Options of peft that are not offered, and why."""


def changes_base(init: Any) -> bool:
    """Whether an init of LoRA takes what the adapter begins with out of the base."""
    return isinstance(init, str) and init.split("_niter_")[0] in CHANGED_BASE
