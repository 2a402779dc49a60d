"""Models and tokenizers from scratch, saved and loaded again."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.data.encoding.encoder import Encoder
from posttrain.errors import SetupError
from posttrain.model.load import VOCABULARY_MULTIPLE, load, make_tokenizer
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.settings.data import DataConfig
from posttrain.settings.model import CharacterTokenizer, ModelConfig

TALK = [{"role": "user", "content": "1 + 1 =\n"}, {"role": "assistant", "content": "2"}]
CUSTOM = "0123+é\u0301日 "


def config(architecture: str = "qwen2", tokenizer: Any = "characters", **options: Any) -> ModelConfig:
    size = {"architecture": architecture, "hidden_size": 64, "num_attention_heads": 2, **options.pop("size", {})}
    return ModelConfig.model_validate({"from_scratch": size, "tokenizer": tokenizer, **options})


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Any]]:
    """Each kind as it is made, and as AutoTokenizer reads it from a folder."""
    made: dict[str, list[Any]] = {}
    for kind in ("bytes", "characters", CUSTOM):
        fresh = make_tokenizer(CharacterTokenizer(characters=kind) if kind == CUSTOM else kind)
        folder = tmp_path_factory.mktemp("tokenizer")
        fresh.save_pretrained(folder)
        made[kind] = [fresh, AutoTokenizer.from_pretrained(folder)]
    return made.__getitem__


def check_round_trip(tokenizers: list[Any], text: str) -> None:
    ids = [tokenizer(text, add_special_tokens=False).input_ids for tokenizer in tokenizers]
    assert ids[0] == ids[1] and tokenizers[0].unk_token_id not in ids[0]
    assert [tokenizer.decode(ids[0]) for tokenizer in tokenizers] == [text, text]


@settings(max_examples=150)
@given(text=st.text())
@example("e\u0301 ё\u0308 Å ﬁ 𝔘 👩‍👩‍👧 \u200b\u202e\ufeff\x00\r\n\t  a , b ' s")
def test_bytes_hold_any_text(tokenizers: Any, text: str) -> None:
    check_round_trip(tokenizers("bytes"), text)


@settings(max_examples=80)
@given(text=st.text(string.printable))
@example(string.printable)
@example("  two  spaces , and n't")
def test_characters_hold_printable_ascii(tokenizers: Any, text: str) -> None:
    check_round_trip(tokenizers("characters"), text)
    assert len(tokenizers("characters")[0](text).input_ids) == len(text)


@settings(max_examples=80)
@given(text=st.text(CUSTOM))
def test_an_alphabet_holds_its_own_characters(tokenizers: Any, text: str) -> None:
    check_round_trip(tokenizers(CUSTOM), text)


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize("kind", ["bytes", "characters", {"characters": "12+ =\n"}])
def test_a_saved_model_is_the_same_model(tmp_path: Path, architecture: str, kind: Any) -> None:
    model, tokenizer = load(config(architecture, kind), seed=3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, tokens = AutoModelForCausalLM.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    rendered = [t.apply_chat_template(TALK, return_dict=False) for t in (tokenizer, tokens)]
    assert rendered[0] == rendered[1] and tokens.chat_template == tokenizer.chat_template
    ids = torch.tensor([rendered[0]])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ids).logits, again(ids).logits, rtol=0, atol=0)
    assert eos_ids(again, tokens) == eos_ids(model, tokenizer) == [tokenizer.eos_token_id]
    assert again.generation_config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id


def test_weights_are_a_function_of_the_seed_and_leave_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    states = [load(config(), seed=seed)[0].state_dict() for seed in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    one, same, other = (state["model.embed_tokens.weight"] for state in states)
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_a_vocabulary_larger_than_the_tokenizer_is_no_fault(tmp_path: Path) -> None:
    model, tokenizer = load(config(tokenizer={"characters": "12+"}), seed=0)
    rows = model.get_input_embeddings().num_embeddings
    assert rows > len(tokenizer) and rows % VOCABULARY_MULTIPLE == 0
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, tokens = load(ModelConfig(name=str(tmp_path)), seed=0)
    encoder = Encoder(tokens, DataConfig.model_validate({"train": {"path": "x.jsonl"}}), eos_ids(again, tokens))
    assert encoder.demonstration({"prompt": "1+1", "completion": "2"})[0].mask.all()
    assert isinstance(tokens.decode([rows - 1, tokens("1").input_ids[0]]), str)  # a sampled id beyond it is no crash


@pytest.mark.parametrize("listed", [None, 4, [1, 4, 4]])
def test_end_tokens_are_the_tokenizers_and_the_generation_configs(listed: Any) -> None:
    model, tokenizer = load(config(), seed=0)
    model.generation_config.eos_token_id = listed
    assert eos_ids(model, tokenizer) == ([1] if listed is None else [1, 4])


def test_fields_of_a_named_models_config_can_be_changed(tmp_path: Path) -> None:
    made, tokenizer = load(ModelConfig.model_validate({"from_scratch": {}, "tokenizer": "bytes"}), seed=0)
    made.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    changed = {"max_position_embeddings": 99, "rope_parameters": {"rope_theta": 40000.0}}
    model, _ = load(ModelConfig.model_validate({"name": str(tmp_path), "config": changed}), seed=0)
    assert model.config.max_position_embeddings == 99
    assert model.config.rope_parameters == {**made.config.rope_parameters, "rope_theta": 40000.0}
    tokens = torch.arange(6)[None]
    assert not torch.equal(model(tokens).logits, made(tokens).logits)
    with pytest.raises(SetupError, match=r"model\.config: max_positions is no field of .*Qwen2Config"):
        load(ModelConfig.model_validate({"name": str(tmp_path), "config": {"max_positions": 99}}), seed=0)
    with pytest.raises(ValueError, match="described by from_scratch"):
        ModelConfig.model_validate({"from_scratch": {}, "tokenizer": "bytes", "config": changed})
