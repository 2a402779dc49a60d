"""Tokenizers, read by one class whatever is installed, and the tokens that end an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from posttrain.data.encoding.template import Template
from posttrain.errors import SetupError
from posttrain.telling import tell

GENERIC = "TokenizersBackend"
"""The class that stands in a tokenizer's folder where it is of no class of its own."""


def read_tokenizer(place: str, **source: Any) -> Any:
    """A tokenizer by name or folder, by its tokenizer.json whether mistral_common is installed or not.

    Raises:
        SetupError: it is there in Mistral's own form only.
    """
    folder = Path(place)
    if _is_all_in_its_file(folder):
        return PreTrainedTokenizerFast.from_pretrained(place)
    if not (folder / "tokenizer.json").is_file() and (folder / "tekken.json").is_file():
        raise SetupError(
            f"{place} has its tokenizer as tekken.json only, Mistral's own form, which MistralCommonBackend reads where "
            "mistral_common is installed, as vLLM brings it: it has no chat template, and takes no special token from text. "
            "Bring the model's tokenizer.json and tokenizer_config.json, or name a repository that has them."
        )
    return AutoTokenizer.from_pretrained(place, mistral_format=False, **source)


def _is_all_in_its_file(folder: Path) -> bool:
    """Whether a tokenizer was saved as one of no class of its own; AutoTokenizer may give it that of its model's kind."""
    described = folder / "tokenizer_config.json"
    return described.is_file() and json.loads(described.read_text()).get("tokenizer_class") == GENERIC


def eos_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every id that ends an answer: the tokenizer's own, the generation config's, what the chat template ends turns with."""
    ends = [i for i in [tokenizer.eos_token_id, *_listed(model)] if i is not None]
    if getattr(tokenizer, "chat_template", None):
        ends.append(Template(tokenizer).end_of_turn(ends))
    return list(dict.fromkeys(i for i in ends if i is not None))


def settle_ends(model: Any, tokenizer: Any) -> None:
    """Has the generation config name every id that ends an answer, so that what is saved ends as it was trained to."""
    generation = getattr(model, "generation_config", None)
    ends, listed = eos_ids(model, tokenizer), _listed(model)
    missing = [i for i in ends if i not in listed]
    if generation is None or not missing:
        return
    generation.eos_token_id = ends if len(ends) > 1 else ends[0]
    names = ", ".join(map(str, tokenizer.convert_ids_to_tokens(missing)))
    tell(
        "ends",
        f"Answers end with {names} too, by the tokenizer or its chat template; the model's generation config did not say so, "
        "and does from now on.",
    )


def _listed(model: Any) -> list[int]:
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return [i for i in (listed if isinstance(listed, list) else [listed]) if i is not None]
