"""Models and tokenizers: loaded by name or folder, or made from scratch."""

from __future__ import annotations

import string
from pathlib import Path
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
from posttrain.model.adapters.making import with_fresh_adapter
from posttrain.model.adapters.merging import base_of
from posttrain.model.layers.products import take_products
from posttrain.model.pretrained.model import held_in, outlined, pretrained, with_adapter
from posttrain.model.pretrained.tokenizer import settle_ends
from posttrain.settings.model import CharacterTokenizer, FromScratch, ModelConfig
from posttrain.telling import tell

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


def load(config: ModelConfig, *, seed: int, masters: bool = False) -> tuple[Any, Any]:
    """Model and tokenizer, with the adapter where one is asked for.

    The model is held in its dtype; with `masters`, in float32 where all of it is to be trained and that is less.

    Raises:
        SetupError: they cannot be found or read, or do not fit each other.
    """
    if config.from_scratch is not None:
        tokenizer = make_tokenizer(config.tokenizer)
        model = make_model(config.from_scratch, tokenizer, seed=seed).to(held_in(config, masters=masters))
    else:
        model, tokenizer = pretrained(config, masters=masters)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise SetupError(
            f"{config.label}: the tokenizer has {len(tokenizer)} ids, the model's embedding "
            f"{model.get_input_embeddings().num_embeddings} rows: they do not belong together."
        )
    settle_ends(model, tokenizer)
    adapted = _adapted(model, config, seed)
    if not torch.cuda.is_available():
        take_products(adapted)
    return adapted, tokenizer


def outline(config: ModelConfig, *, seed: int) -> tuple[Any, Any]:
    """What a model says of itself, `config` and `generation_config`, without its weights; and its tokenizer.

    Raises:
        SetupError: they cannot be found or read.
    """
    if config.from_scratch is not None:
        return load(config, seed=seed)
    described, tokenizer = outlined(config)
    settle_ends(described, tokenizer)
    return described, tokenizer


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
        alphabet = list(dict.fromkeys(kind.characters if isinstance(kind, CharacterTokenizer) else string.printable))
        as_bytes = all(character.isascii() for character in alphabet)
        symbols = [*map(_byte_symbol, alphabet)] if as_bytes else alphabet
        vocabulary = {symbol: i for i, symbol in enumerate([*specials, *symbols])}
        if as_bytes:  # as `bytes`: AutoTokenizer gives a model of a kind the pre-tokenizer of that kind, which is of bytes
            core = Tokenizer(models.BPE(vocabulary, [], unk_token=UNKNOWN))
            core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            core.decoder = decoders.ByteLevel()
        else:
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


def _byte_symbol(character: str) -> str:
    """What stands for an ASCII character in a vocabulary of bytes."""
    from tokenizers import pre_tokenizers

    [(symbol, _)] = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(character)
    return symbol


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
    adapter = config.adapter
    if adapter is None:
        return model
    if adapter.continue_from is not None:
        adapted = with_adapter(model, Path(adapter.continue_from), config.label, key="model.adapter.continue")
    else:
        adapted = with_fresh_adapter(model, adapter, seed=seed, label=config.label)
    untie(adapted)
    return adapted


def untie(model: Any) -> None:
    """Gives an embedding and a head that share a matrix one each, where an adapter changes one of them: it would change both
    when it is merged. A model without an adapter stays as it is.
    """
    if not hasattr(model, "peft_config"):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    base = model.get_base_model()
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    shared = base_of(embedding).weight is base_of(head).weight
    if not shared or not any(isinstance(one, BaseTunerLayer | ModulesToSaveWrapper) for one in (embedding, head)):
        return
    owner: Any = base_of(head)
    owner.weight = torch.nn.Parameter(owner.weight.detach().clone(), requires_grad=owner.weight.requires_grad)
    base.config.tie_word_embeddings = False
    tell(
        "untied",
        "The adapter changes the model's head or its embedding, which share a matrix: each has its own from here on, in what "
        "is saved as well.",
    )
