"""The models of the cases: Qwen2's architecture, random weights of one seed, so that every contender has the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

PAD, END = 0, 1


@dataclass(frozen=True)
class Spec:
    """A model's shape, and where it lies: `dtype` by its name in torch."""

    vocabulary: int = 8192
    hidden: int = 256
    intermediate: int = 768
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    positions: int = 4096
    device: str = "cpu"
    dtype: str = "float32"

    def described(self) -> dict[str, Any]:
        """For a result's shape."""
        names = ("vocabulary", "hidden", "layers", "dtype")
        return {name: value for name, value in asdict(self).items() if name in names}


def make_model(spec: Spec, *, endless: bool = False) -> Any:
    """A causal language model with tied embeddings, in train mode. An endless one has no token that ends an answer."""
    config = Qwen2Config(
        vocab_size=spec.vocabulary,
        hidden_size=spec.hidden,
        intermediate_size=spec.intermediate,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads,
        max_position_embeddings=spec.positions,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=None if endless else END,
    )
    torch.manual_seed(0)
    with torch.device(spec.device):
        model: Any = Qwen2ForCausalLM(config)
    return model.to(device=spec.device, dtype=getattr(torch, spec.dtype)).train()


def make_tokenizer(vocabulary: int, *, endless: bool = False) -> PreTrainedTokenizerFast:
    """One word `w7` for each id 7, between blanks. The end of an endless one is an id that the model does not have, and so
    never samples.
    """
    words = {f"w{i}": i for i in range(1 if endless else 2, vocabulary)}
    ids = {"<pad>": PAD, "<end>": vocabulary if endless else END, **words}
    split = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=split, pad_token="<pad>", eos_token="<end>")


def text(ids: list[int]) -> str:
    """What the tokenizer reads as these ids, to be put behind other text."""
    return "".join(f" w{i}" for i in ids)


def flat(model: Any) -> Tensor:
    """All parameters in one vector, float64."""
    return torch.cat([parameter.detach().double().flatten().cpu() for parameter in model.parameters()])
