"""What a recipe says of its model. No torch or transformers here."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from posttrain.settings.adapters.adapter import Adapter
from posttrain.settings.adapters.quantization import Quantization
from posttrain.settings.base import Config, Template, is_address

HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Sizes of an attention head that vLLM serves on CPU and on GPU both; with others it starts and dies at the first request."""

Size = Annotated[int, Field(ge=1)]
Compute = Literal["bfloat16", "float32"]


class FromScratch(Config):
    """A small model with random weights; field names are those of transformers' configs."""

    architecture: Literal["qwen2", "llama"] = "qwen2"
    """Whose layers the model has."""
    hidden_size: Size = 128
    """Width of the model."""
    intermediate_size: Size = 256
    """Width within an MLP."""
    num_hidden_layers: Size = 2
    """Layers."""
    num_attention_heads: Size = 4
    """Of each layer; hidden_size is divided among them."""
    num_key_value_heads: Size | None = None
    """Fewer than num_attention_heads: these share keys and values in groups. As many if not set."""
    max_position_embeddings: Size = 2048
    """The longest context, in tokens."""
    initializer_range: Annotated[float, Field(gt=0)] = 0.02
    """Standard deviation of the random weights."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of attention weights that training drops."""
    tie_word_embeddings: bool = False
    """One matrix is both the embeddings and the head."""

    @model_validator(mode="after")
    def _heads_fit(self) -> FromScratch:
        size, rest = divmod(self.hidden_size, self.num_attention_heads)
        if rest or size not in HEAD_SIZES:
            raise ValueError(
                f"hidden_size / num_attention_heads is {self.hidden_size / self.num_attention_heads:g}; "
                f"vLLM serves heads of size {', '.join(map(str, HEAD_SIZES))}"
            )
        if self.num_key_value_heads is not None and self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        return self


class CharacterTokenizer(Config):
    """One token for each character of an alphabet."""

    characters: Annotated[str, Field(min_length=1)]
    """The alphabet."""


class TeacherConfig(Config):
    """A frozen model over the student's vocabulary, for algorithms that learn from one."""

    name: Annotated[str, Field(min_length=1)] | None = None
    """A folder, as a run's final/, or a name of the hub."""
    url: Annotated[str, AfterValidator(is_address)] | None = None
    """In place of a name: of a vLLM server that runs already, and gives log-probs of tokens, at temperature 1. On another
    machine, to which rows are sent, only with --allow-remote-engine."""
    adapter: Annotated[str, Field(min_length=1)] | None = None
    """The folder of an adapter (peft) that it wears."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """In which it is held."""
    template: Template | None = None
    """What it is asked in place of the prompt, after which it reads the same answer: "{prompt}\\n\\n{demonstration}", say,
    of a row's columns. Takes the place of data.prompt_template; if not set, it reads what the student reads."""
    revision: str | None = None
    """A branch, tag or commit of the hub."""

    @field_validator("name", "adapter")
    @classmethod
    def _is_at_home(cls, name: str | None) -> str | None:
        return os.path.expanduser(name) if name else name

    @model_validator(mode="after")
    def _is_one_model(self) -> TeacherConfig:
        if (self.name is None) == (self.url is None):
            raise ValueError("give either name or url")
        own = [key for key in ("adapter", "revision", "dtype") if getattr(self, key) != type(self).model_fields[key].default]
        if self.url is not None and own:
            raise ValueError(f"{own[0]}: it is of a model that is loaded here; what serves at url has its own")
        return self


class MovingReference(Config):
    """What becomes of the model that log-probs are compared with: it stays the start model, or follows the policy (TR-DPO,
    Gorbatovski et al. 2024, arXiv:2404.09656).
    """

    refresh: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps from one move to the next; 0: it stays the start model."""
    mix: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The policy's share in a move: reference = mix · policy + (1 - mix) · reference; 1 is a copy."""

    @model_validator(mode="after")
    def _mixes_when_it_moves(self) -> MovingReference:
        if self.mix < 1 and not self.refresh:
            raise ValueError("mix: it is of a reference that moves: set refresh, the steps from one move to the next")
        return self


class ModelConfig(Config):
    """A model by name or folder, or one from scratch with its tokenizer."""

    name: Annotated[str, Field(min_length=1)] | None = None
    """A folder, or a name of the hub."""
    from_scratch: FromScratch | None = None
    """In place of a name: a small model with random weights."""
    tokenizer: Literal["bytes", "characters"] | CharacterTokenizer | None = None
    """Of a model from scratch: a token for each byte, for each of the printable characters, or for each of an alphabet of
    your own."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Of what is saved, and of the frozen weights below an adapter in memory. What is trained is float32 whatever it says;
    float64 alone is held, computed and saved as it is."""
    compute: Compute | None = None
    """Of the products (autocast over the weights); if not set, bfloat16 on a GPU that has it, and float32 on a CPU."""
    revision: str | None = None
    """A branch, tag or commit of the hub."""
    trust_remote_code: bool = False
    """Run code that the model brings; only with a full commit hash as revision."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3"] = "sdpa"
    """As in transformers."""
    adapter: Adapter | None = None
    """Train an adapter; all parameters if not set."""
    quantization: Quantization | None = None
    """Of the base below an adapter: QLoRA. Its linear layers are held in few bits, and all else of it in float32."""
    reference: MovingReference = MovingReference()
    """Of algorithms that compare with the start model: whether that follows the policy."""
    config: dict[str, Any] = {}
    """Fields of a named model's own config.json to change: for a longer context, for instance."""
    teachers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")], TeacherConfig] = {}
    """By names of yours. An algorithm that learns from a teacher takes one."""

    @field_validator("name")
    @classmethod
    def _is_at_home(cls, name: str | None) -> str | None:
        return os.path.expanduser(name) if name else name

    @field_validator("revision")
    @classmethod
    def _is_a_word(cls, revision: str | None) -> str | None:
        if revision is not None and not revision.strip():
            raise ValueError("it is empty")
        return revision

    @model_validator(mode="after")
    def _is_one_model(self) -> ModelConfig:
        if (self.name is None) == (self.from_scratch is None):
            raise ValueError("give either name or from_scratch")
        if (self.from_scratch is None) != (self.tokenizer is None):
            raise ValueError("tokenizer (bytes or characters) goes with from_scratch; a named model brings its own")
        if self.config and self.name is None:
            raise ValueError("config changes a named model's config; one from scratch is described by from_scratch")
        if self.trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError("trust_remote_code runs the repository's code: pin revision to a full commit hash")
        return self

    @model_validator(mode="after")
    def _computes_as_it_is_held(self) -> ModelConfig:
        if self.dtype == "float64" and self.compute is not None:
            raise ValueError(f"dtype: float64 is computed in float64; leave compute: {self.compute} out")
        return self

    @model_validator(mode="after")
    def _can_be_rounded(self) -> ModelConfig:
        if self.quantization is None:
            return self
        if self.from_scratch is not None:
            raise ValueError("quantization: it is of a model that was trained before: give its name in place of from_scratch")
        if self.dtype == "float64":
            raise ValueError("quantization: dtype: float64 has no use for weights of few bits; leave one of them out")
        self.quantization.check(self.adapter)
        return self

    @property
    def label(self) -> str:
        """For messages."""
        return self.name or f"{getattr(self.from_scratch, 'architecture', '')} from scratch"
