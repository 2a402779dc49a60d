"""Small tokenizers and chat templates in the shapes that real ones have, each with what is particular about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from posttrain.model.load import make_tokenizer

THOUGHT = "<think>\nI add.\n</think>\n\n"
"""How an answer begins that was thought about."""

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + BODY + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\nOPENED' }}{% endif %}"
)
_KEPT = "m.content"
_SPLIT = "(m.content.split('</think>')[-1] if m.role == 'assistant' and CONDITION else m.content)"


def chatml(body: str = _KEPT, opened: str = "") -> str:
    return CHATML.replace("BODY", body).replace("OPENED", opened)


LLAMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}"
    "{% else %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
DATED = "{{ 'Today is ' + strftime_now('%d %B %Y') + '\n' }}" + chatml()
PLAIN_ENDS = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
NEXT_HEADER = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def of_bytes(template: str, *added: str, strips: bool = False) -> Any:
    """Single bytes; the end that the tokenizer names is <|end|>, and tokens of ChatML are special."""
    made = make_tokenizer("bytes")
    tokens = [AddedToken(name, special=True, normalized=False, rstrip=strips) for name in ("<|im_start|>", "<|im_end|>")]
    made.backend_tokenizer.add_special_tokens([*tokens, *(AddedToken(n, special=True, normalized=False) for n in added)])
    made.chat_template = template
    return made


def with_bos_and_eos() -> Any:
    """Puts a token before and one behind each text."""
    made = of_bytes(chatml(), "<s>", "</s>")
    made.bos_token = "<s>"
    core = made.backend_tokenizer
    ids = [(name, core.token_to_id(name)) for name in ("<s>", "</s>")]
    core.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    return made


def with_dummy_space(template: str, *, everywhere: bool) -> Any:
    """As sentencepiece: a space before each piece of text between special tokens, or before the first one only."""
    letters = "abcdefghijklmnopqrstuvwxyzIT[]/:.,<>|+=?0123456789\n"
    pieces = ["<unk>", "<s>", "</s>", "▁", *letters, "▁I", "▁T", "▁[", "▁it", "it", "IN", "▁is", "is"]
    pieces += [letter for letter in "NS" if letter not in pieces]
    core = Tokenizer(models.Unigram([(piece, -float(len(pieces) - i)) for i, piece in enumerate(pieces)], unk_id=0))
    if everywhere:
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    core.decoder = decoders.Metaspace()
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in pieces[:3]])
    ids = [("<s>", core.token_to_id("<s>"))]
    core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=ids)
    names = dict(zip(("unk_token", "bos_token", "eos_token"), pieces, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="</s>", chat_template=template, **names)


FAMILIES: dict[str, Callable[[], Any]] = {
    "own": lambda: make_tokenizer("bytes"),
    "two end tokens": lambda: of_bytes(chatml()),
    "tokens that strip": lambda: of_bytes(chatml(), strips=True),
    "a token before and behind": with_bos_and_eos,
    "a space everywhere, Llama": lambda: with_dummy_space(LLAMA, everywhere=True),
    "a space everywhere, Zephyr": lambda: with_dummy_space(ZEPHYR, everywhere=True),
    "a space at the start, Llama": lambda: with_dummy_space(LLAMA, everywhere=False),
    "a space at the start, Zephyr": lambda: with_dummy_space(ZEPHYR, everywhere=False),
    "rewrites history": lambda: of_bytes(chatml(_SPLIT.replace("CONDITION", "not loop.last"))),
    "asks for thoughts": lambda: of_bytes(chatml(opened="<think>\n")),
    "asks for thoughts, drops them": lambda: of_bytes(chatml(_SPLIT.replace("CONDITION", "true"), opened="<think>\n")),
    "writes the date": lambda: of_bytes(DATED),
    "ends turns as text": lambda: of_bytes(PLAIN_ENDS),
    "ends turns with the next header": lambda: of_bytes(NEXT_HEADER),
    "strips contents": lambda: of_bytes(chatml("m.content.strip()")),
}
"""All of them, by what they do."""
THOUGHTFUL = ("asks for thoughts", "asks for thoughts, drops them")
"""Those whose answers must begin with a thought."""
