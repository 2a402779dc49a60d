"""What a model cannot take is not taken, is said once, and the plain way gives the model's own numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, MistralConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from posttrain import PostTrainer
from posttrain.errors import SetupError
from posttrain.model.layout.blocks import Blocks
from posttrain.model.scoring import Scorer, output_head
from posttrain.model.trials import _of_own_logits, _padded, _scored, usable_head, usable_layout
from posttrain.settings.model import Adapter
from tiny import make_model, parameters

MakeTrainer = Callable[..., PostTrainer]
SIZES = ("hidden_size", "intermediate_size")
SMALL: dict[str, Any] = {"vocab_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, **dict.fromkeys(SIZES, 32)}


def made(config: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for one in model.parameters():
        torch.nn.init.normal_(one, std=0.3)
    return model


def gemma(**options: Any) -> Any:
    return made(Gemma2Config(**SMALL, num_key_value_heads=1, head_dim=32, **options))


def test_capped_logits_are_made_whole_and_are_the_models_own(caplog: pytest.LogCaptureFixture) -> None:
    model = gemma(final_logit_softcapping=0.5)
    assert usable_head(model, "one_pass", 64) == "whole"
    assert caplog.text.count("changes its logits after the output layer") == 1 and "Gemma2ForCausalLM" in caplog.text
    inputs, mask = _padded(64)
    scored, own = _scored(model, inputs, mask, Scorer("whole")), _of_own_logits(model, inputs, mask)
    torch.testing.assert_close(scored, own, rtol=0, atol=1e-6)


def test_a_head_that_was_read_whole_for_once_is_tried_again() -> None:
    model, _ = make_model()
    assert [usable_head(model, asked, 64) for asked in ("whole", "two_pass", "one_pass")] == ["whole", "two_pass", "one_pass"]


def test_an_adapter_on_the_head_is_trained_by_the_whole_logits(
    make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model(adapter=Adapter(r=2, target_modules=["lm_head"]))
    trainer = make_trainer("sft", model=model)
    assert "so that its whole logits are made" in caplog.text
    before, frozen = parameters(model[0]), output_head(model[0]).base_layer.weight.clone()
    trainer.train()
    assert (parameters(model[0]) - before).abs().max() > 1e-6
    assert torch.equal(output_head(model[0]).base_layer.weight, frozen)


def test_whole_distributions_need_a_matrix(make_trainer: MakeTrainer) -> None:
    model = make_model(adapter=Adapter(r=2, target_modules=["lm_head"]))
    with pytest.raises(SetupError, match="asft compares whole distributions"):
        make_trainer("asft", model=model)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Gemma2Config(**SMALL, num_key_value_heads=1, head_dim=32), "layers of sliding_attention"),
        (MistralConfig(**SMALL, num_key_value_heads=1, sliding_window=4096), "attention is bounded (sliding_window)"),
    ],
)
def test_windows_are_padded(config: Any, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    model = made(config)
    former = model.config._attn_implementation
    assert usable_layout(model, "shared", 64) == "padded" and model.config._attn_implementation == former
    [message] = caplog.messages
    assert reason in message and message.endswith("so that rows are padded.")


def test_a_model_that_does_not_keep_documents_apart_is_padded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def across(self: Any, query: Any, key: Any, value: Any, *, scale: float, dropout: float) -> torch.Tensor:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale).transpose(1, 2)

    monkeypatch.setattr(Blocks, "attend", across)
    assert usable_layout(make_model()[0], "shared", 64) == "padded"
    assert "does not keep packed rows apart" in caplog.text


def test_a_model_that_takes_no_layout_is_padded(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = make_model()
    plain = model.forward
    monkeypatch.setattr(model, "forward", lambda input_ids, attention_mask, use_cache=False: plain(input_ids, attention_mask))
    assert usable_layout(model, "shared", 64) == "padded"
    assert "takes no packed rows" in caplog.text


FULL = [
    GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=1),
    MistralConfig(**SMALL, num_key_value_heads=1, sliding_window=None),
]


@pytest.mark.parametrize("config", FULL)
def test_other_architectures_take_packed_rows(config: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert usable_layout(made(config), "shared", 64) == "shared" and not caplog.text


def test_without_a_layout_the_model_is_what_it_was() -> None:
    model, _ = make_model()
    ids, mask = torch.randint(0, 200, (3, 9)), torch.arange(9) < torch.tensor([9, 5, 7])[:, None]
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 6}
    with torch.no_grad():
        before = model(ids, attention_mask=mask).logits, model.generate(ids, attention_mask=mask.flip(1).long(), **options)
        assert usable_layout(model, "shared", 64) == "shared" and model.config._attn_implementation == "packed_sdpa"
        after = model(ids, attention_mask=mask).logits, model.generate(ids, attention_mask=mask.flip(1).long(), **options)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert "packed" not in model.config.to_json_string()
    assert {"packed_sdpa"} <= set(ALL_ATTENTION_FUNCTIONS.valid_keys())
