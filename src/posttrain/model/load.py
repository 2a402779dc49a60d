"""Models and tokenizers: loaded by name or folder, or made from scratch."""

from __future__ import annotations

import string
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from posttrain.errors import SetupError
from posttrain.model.pretrained import first_line, pretrained
from posttrain.settings.model import CharacterTokenizer, FromScratch, ModelConfig, adapter_options

VOCABULARY_MULTIPLE = 16  # rows of the embedding are padded to it; ids beyond the tokenizer's are never produced by it
PAD, END, UNKNOWN = "<|pad|>", "<|end|>", "<|unknown|>"
ROLES = ("system", "user", "assistant", "tool")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_ARCHITECTURES = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}


def load(config: ModelConfig, *, seed: int) -> tuple[Any, Any]:
    """Model and tokenizer, with the adapter where one is asked for.

    Raises:
        SetupError: they cannot be found or read, or do not fit each other.
    """
    if config.from_scratch is not None:
        tokenizer = make_tokenizer(config.tokenizer)
        model = make_model(config.from_scratch, tokenizer, seed=seed).to(getattr(torch, config.dtype))
    else:
        model, tokenizer = pretrained(config)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise SetupError(
            f"{config.label}: the tokenizer has {len(tokenizer)} ids, the model's embedding "
            f"{model.get_input_embeddings().num_embeddings} rows: they do not belong together."
        )
    return _adapted(model, config, seed), tokenizer


def eos_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every id that ends an answer, the tokenizer's own first, then those of the generation config."""
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    more = listed if isinstance(listed, list) else [listed]
    return list(dict.fromkeys(i for i in [tokenizer.eos_token_id, *more] if i is not None))


def context_of(model: Any) -> int | None:
    """Tokens of prompt and answer together that a model reads at most, where it says so."""
    return getattr(model.config, "max_position_embeddings", None)


def make_tokenizer(kind: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes, or of the characters of an alphabet (printable ASCII for `characters`)."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    specials = [PAD, END, UNKNOWN, *(f"<|{role}|>" for role in ROLES)]
    if kind == "bytes":
        symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {symbol: i for i, symbol in enumerate([*specials, *symbols])}
        core = Tokenizer(models.BPE(vocabulary, []))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        core.decoder = decoders.ByteLevel()
    else:
        alphabet = kind.characters if isinstance(kind, CharacterTokenizer) else string.printable
        vocabulary = {symbol: i for i, symbol in enumerate([*specials, *dict.fromkeys(alphabet)])}
        core = Tokenizer(models.WordLevel(vocabulary, UNKNOWN))
        core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=specials[3:],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def make_model(config: FromScratch, tokenizer: Any, *, seed: int) -> Any:
    """A model with random weights, a function of the seed."""
    fields = config.model_dump(exclude={"architecture"}, exclude_none=True)
    make_config, make = _ARCHITECTURES[config.architecture]
    vocabulary = -(-len(tokenizer) // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make(
            make_config(**{"num_key_value_heads": config.num_attention_heads, **fields, **ends}, vocab_size=vocabulary)
        )
    model.generation_config = GenerationConfig(**ends)
    return model


def _adapted(model: Any, config: ModelConfig, seed: int) -> Any:
    if config.adapter is None:
        return model
    from peft import LoraConfig, get_peft_model

    options = adapter_options(config.adapter)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, LoraConfig(**options))
        except ValueError as error:
            raise SetupError(f"{config.label}: the adapter does not fit: {first_line(error)}") from error


def disable_dropout(model: torch.nn.Module) -> None:
    """Sets every dropout rate to 0: modules, LoRA's among them, and the rates that attention layers keep as numbers."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout", "dropout_p", "attn_dropout", "hidden_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
