"""What a model cannot take is not taken, is said once, and the plain way gives the model's own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, MistralConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import flash
from posttrain import PostTrainer
from posttrain.errors import SetupError
from posttrain.model.layout.blocks import Blocks
from posttrain.model.layout.trial import BOUND, Heads, difference
from posttrain.model.proofs.trials import (
    _of_own_logits,
    _scored,
    _varlen_fails,
    padded,
    tell_of_plain_attention,
    usable_head,
    usable_layout,
    usable_varlen,
)
from posttrain.model.scoring import Scorer, output_head
from posttrain.settings.model import Adapter
from posttrain.telling import hearing
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
    inputs, mask = padded(64)
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
        (
            Gemma2Config(
                **SMALL, num_key_value_heads=1, head_dim=32, layer_types=["full_attention"] * 2, sliding_window=None
            ),
            "takes no packed rows (its attention has a softcap)",
        ),
    ],
)
def test_windows_and_caps_are_padded(config: Any, reason: str, caplog: pytest.LogCaptureFixture) -> None:
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


HEADS = Heads(queries=4, keys=2, size=16, value_size=16, scale=0.3)
CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernel_for_any_length_gives_what_blocks_give_up_to_rounding(dtype: torch.dtype) -> None:
    with flash.kernels():
        assert 1e-5 < difference(HEADS, CPU, dtype) < BOUND / 3


def shifted(real: Any, change: Any) -> Callable[..., Any]:
    return lambda *args, **options: change(*real(*args, **options))


def unmasked(*args: Any, real: Callable[..., Any] = flash.forward, **options: Any) -> Any:
    return real(*args[:8], False, *args[9:], **options)


FAULTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "no mask": ("forward", unmasked),
    "log-sums in base 2": ("forward", shifted(flash.forward, lambda out, logsum, *more: (out, logsum / math.log(2), *more))),
    "keys' gradients lost": ("backward", shifted(flash.backward, lambda query, key, value: (query, key * 0, value))),
    "not a number": ("backward", shifted(flash.backward, lambda query, key, value: (query, key, value * torch.nan))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_that_computes_something_else_is_not_used(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong = FAULTS[fault]
    monkeypatch.setattr(flash, name, wrong)
    model, _ = make_model()
    assert usable_layout(model, "shared", 64) == "shared"
    with flash.kernels():
        reason = _varlen_fails(model, 64, CPU, torch.bfloat16)
    assert reason is not None and "differs from the plain way" in reason


def test_one_that_is_not_there_or_takes_other_numbers_is_not_used() -> None:
    model, _ = make_model()
    assert usable_layout(model, "shared", 64) == "shared"
    assert "fails (Could not run 'aten::_flash_attention_forward'" in str(_varlen_fails(model, 64, CPU, torch.bfloat16))
    assert "is computed in float32" in str(_varlen_fails(model, 64, CPU, torch.float32))
    with flash.kernels():
        assert _varlen_fails(model, 64, CPU, torch.bfloat16) is None


def test_it_is_for_packed_rows_on_cuda(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where it is not used there, that is told."""
    tried = list[torch.device]()

    def tries(model: Any, vocabulary: int, device: torch.device, dtype: torch.dtype) -> str | None:
        tried.append(device)
        return None if dtype == torch.bfloat16 else "it is slow"

    monkeypatch.setattr("posttrain.model.proofs.trials._varlen_fails", tries)
    cuda, model = torch.device("cuda"), make_model()[0]
    assert usable_varlen(model, "shared", 64, device=cuda, dtype=torch.bfloat16)
    assert not usable_varlen(model, "padded", 64, device=cuda, dtype=torch.bfloat16)
    assert not usable_varlen(model, "shared", 64, device=CPU, dtype=torch.bfloat16)
    assert tried == [cuda] and not caplog.text
    assert not usable_varlen(model, "packed", 64, device=cuda, dtype=torch.float32)
    assert "it is slow, so that packed rows are attended to block by block." in caplog.text


@pytest.mark.parametrize(("implementation", "told"), [("sdpa", []), ("another", ["attention-of-padded-rows"])])
def test_an_attention_that_packed_rows_do_not_use_is_told(implementation: str, told: list[str]) -> None:
    for functions in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS):
        functions.register("another", functions["sdpa"])
    model, _ = make_model()
    model.set_attn_implementation(implementation)
    with hearing() as heard:
        assert usable_layout(model, "padded", 64) == "padded"
        assert not heard
        assert [usable_layout(model, "packed", 64) for _ in range(2)] == ["packed", "packed"]
    assert [one.rule for one in heard][:1] == told
    assert all(f"attn_implementation: {implementation} is of padded rows" in one.sentence for one in heard)


def test_grouped_heads_without_a_kernel_on_a_gpu_are_told() -> None:
    def told(device: str, *, bf16: bool, dtype: str = "float32", keys: int = 1) -> list[str]:
        model, _ = make_model(dtype=dtype, hidden_size=64, num_attention_heads=2, num_key_value_heads=keys)
        with hearing() as heard:
            tell_of_plain_attention(model, device=device, bf16=bf16)
        return [one.sentence for one in heard]

    [sentence] = told("cuda", bf16=False)
    assert "Qwen2ForCausalLM has 2 heads of queries on 1 of keys. In float32" in sentence
    assert "set model.compute: bfloat16" in sentence
    assert not told("cuda", bf16=True) and not told("cpu", bf16=False) and not told("cuda", bf16=False, keys=2)
    assert not told("cuda", bf16=False, dtype="bfloat16")
