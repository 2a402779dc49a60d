"""What ends an answer is told to all alike; a folder's tokens do not depend on what else is installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from asked import talk
from families import FAMILIES, chatml, of_bytes
from posttrain.errors import SetupError
from posttrain.model.load import load
from posttrain.model.pretrained.tokenizer import eos_ids, read_tokenizer, settle_ends
from posttrain.model.proofs.tokens import TEXT
from posttrain.settings.model import ModelConfig
from posttrain.telling import hearing


def model() -> Any:
    return load(ModelConfig.model_validate({"from_scratch": {}, "tokenizer": "bytes"}), seed=0)[0]


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("two end tokens", "<|im_end|>"),
        ("rewrites history", "<|im_end|>"),
        ("own", "<|end|>"),
        ("a space everywhere, Llama", "</s>"),
        ("ends turns with the next header", "<|user|>"),
        ("ends turns as text", None),
    ],
)
def test_what_a_template_writes_right_after_an_answer_is_an_end_everywhere(name: str, end: str | None) -> None:
    made, tokens = model(), FAMILIES[name]()
    made.generation_config.eos_token_id = tokens.eos_token_id
    wanted = {tokens.eos_token_id} | ({tokens.convert_tokens_to_ids(end)} if end else set())
    with hearing() as heard:
        settle_ends(made, tokens)
    assert set(eos_ids(made, tokens)) == wanted
    listed = made.generation_config.eos_token_id
    assert set(listed if isinstance(listed, list) else [listed]) == wanted
    assert [one.rule for one in heard] == ["ends"] * (len(wanted) - 1)
    assert all(str(end) in one.sentence for one in heard)
    with hearing() as again:
        settle_ends(made, tokens)
    assert not again


def test_of_several_tokens_after_an_answer_one_that_is_known_for_an_end_is_taken() -> None:
    tokens = of_bytes(chatml().replace("<|im_end|>", "<|closed|><|im_end|>"), "<|closed|>")
    made = model()
    made.generation_config.eos_token_id = tokens.convert_tokens_to_ids("<|im_end|>")
    assert tokens.convert_tokens_to_ids("<|closed|>") not in eos_ids(made, tokens)


@pytest.mark.system  # mistral_common comes with vLLM
def test_a_folder_gives_the_same_tokens_with_mistral_common_as_without(
    tmp_path: Path, real_model: Callable[[str], Path]
) -> None:
    assert find_spec("mistral_common") is not None
    tokens = FAMILIES["a space everywhere, Llama"]()
    tokens.save_pretrained(tmp_path)
    AutoConfig.for_model("mistral").save_pretrained(tmp_path)
    alone = read_tokenizer(str(tmp_path))
    shutil.copy(real_model("mistral-tekken") / "tekken.json", tmp_path / "tekken.json")
    again = read_tokenizer(str(tmp_path))
    assert type(again) is type(alone)
    assert again(TEXT).input_ids == alone(TEXT).input_ids == tokens(TEXT).input_ids
    messages = talk("it", "is")
    assert again.apply_chat_template(messages, tokenize=False) == tokens.apply_chat_template(messages, tokenize=False)


def test_mistrals_own_form_alone_is_refused_by_the_name_of_its_class(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mistral"}))
    (tmp_path / "tekken.json").write_text("{}")  # it is not opened
    with pytest.raises(SetupError, match=r"MistralCommonBackend.*tokenizer\.json"):
        read_tokenizer(str(tmp_path))
