"""What is saved is proved against what was trained: each tensor of the files, the tokenizer's ids, the log-probs."""

from __future__ import annotations

import copy
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from posttrain.errors import CheckpointError
from posttrain.model.load import untie
from posttrain.model.proofs import disk, saved
from posttrain.model.proofs.rows import ProbeRows
from posttrain.model.proofs.tokens import round_trip_fault
from posttrain.model.saving import copy_folder, save_model
from posttrain.settings.model import Adapter
from posttrain.telling import hearing
from tiny import make_model

ROWS = [[60, 61, 62, 63, 64], [70, 71, 72]]
LORA: dict[str, dict[str, Any]] = {
    "the head": {"target_modules": ["lm_head", "q_proj"]},
    "the embedding": {"target_modules": ["embed_tokens"]},
    "the head as a whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "magnitudes too": {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
}


def shaken(model: Any) -> Any:
    """As if it had been trained."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


def nll(model: Any) -> float:
    return -ProbeRows.of(ROWS, 96).logp(model).mean().item()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("changed", LORA)
def test_an_adapter_of_any_layer_is_in_the_final_model(changed: str, tied: bool, tmp_path: Path) -> None:
    model, tokenizer = make_model(dtype="float32", tie_word_embeddings=tied)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, **LORA[changed]))
    untie(model)
    save_model(shaken(model), tokenizer, tmp_path / "final", rows=ROWS)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    assert nll(again) == pytest.approx(nll(model), abs=1e-4)
    assert again.config.tie_word_embeddings == (tied and changed == "magnitudes too")


def test_an_adapter_that_would_be_merged_into_a_shared_matrix_is_found(tmp_path: Path) -> None:
    model, tokenizer = make_model(dtype="float32", tie_word_embeddings=True)
    model = shaken(get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, **LORA["the embedding"])))
    (tmp_path / "final").mkdir()
    with pytest.raises(CheckpointError, match=r"final would not be the model that was trained: .*final\.unproved") as raised:
        save_model(model, tokenizer, tmp_path / "final", rows=ROWS)
    assert raised.value.exit_code == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["final", "final.unproved"]


def change(folder: Path, of: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    of(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def nudge(tensors: dict[str, torch.Tensor]) -> None:
    weight = tensors["model.layers.1.mlp.down_proj.weight"]
    weight[3, 4] = torch.nextafter(weight[3, 4], torch.tensor(9.0))


def swap(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.self_attn.q_proj.weight"] = tensors["model.layers.0.self_attn.q_proj.weight"].flip(0)


HARM: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "one bit": (nudge, "model.layers.1.mlp.down_proj.weight has other values"),
    "rows swapped": (swap, "model.layers.0.self_attn.q_proj.weight has other values"),
    "lost": (lambda tensors: tensors.pop("model.norm.weight"), "model.norm.weight is in no file"),
    "added": (lambda tensors: tensors.update(x=torch.ones(1)), "x is in its files and not of the model"),
    "another dtype": (lambda t: t.update({"model.norm.weight": t["model.norm.weight"].half()}), "torch.float16 in place of"),
    "cut": (lambda t: t.update({"model.norm.weight": t["model.norm.weight"][:4]}), "the shape (4,) in place of (32,)"),
}


@pytest.mark.parametrize("harm", HARM)
def test_files_that_are_not_what_was_to_be_written_are_found(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, (how, says) = PreTrainedModel.save_pretrained, HARM[harm]

    def harmed(self: Any, folder: Any, **options: Any) -> None:
        honest(self, folder, **options)
        change(Path(folder), how)

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", harmed)
    model, tokenizer = make_model(dtype="float32")
    with pytest.raises(CheckpointError) as raised:
        save_model(model, tokenizer, tmp_path / "final", rows=ROWS)
    assert says in str(raised.value)


def test_files_of_several_shards_are_proved_by_their_index(tmp_path: Path) -> None:
    model, tokenizer = make_model(dtype="float32", tie_word_embeddings=True)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    tokenizer.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert saved.saved_fault(tmp_path, model, tokenizer, ROWS, None) is None
    index = tmp_path / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    listed["weight_map"]["more.weight"] = next(iter(listed["weight_map"].values()))
    index.write_text(json.dumps(listed))
    assert saved.saved_fault(tmp_path, model, tokenizer, ROWS, None) == "more.weight is in its index and in no file"


def test_a_config_that_makes_another_model_of_the_same_files_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = PreTrainedModel.save_pretrained

    def harmed(self: Any, folder: Any, **options: Any) -> None:
        honest(self, folder, **options)
        config = json.loads((Path(folder) / "config.json").read_text())
        (Path(folder) / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", harmed)
    model, tokenizer = make_model(dtype="float32")
    with pytest.raises(CheckpointError, match=r"its log-probs differ from those of the trained model by up to"):
        save_model(model, tokenizer, tmp_path / "final", rows=ROWS)


def test_without_room_for_a_second_copy_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "ROOM", 1e12)
    with hearing() as heard:
        save_model(*make_model(dtype="float32"), tmp_path / "final", rows=ROWS)
    [told] = heard
    assert told.rule == "save-not-scored" and "its files and tokenizer are proved" in told.sentence


def generic() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({"<|end|>": 0, "?": 1, **{c: i for i, c in enumerate("0123456789+ =é\n", 2)}}, "?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>", unk_token="?")


@pytest.mark.parametrize(("architecture", "kept"), [("qwen2", False), ("llama", True)])
def test_a_tokenizer_that_its_models_kind_would_replace_is_found(architecture: str, kept: bool, tmp_path: Path) -> None:
    from posttrain.model.load import load
    from posttrain.settings.model import ModelConfig

    scratch = {"architecture": architecture, "hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1}
    model, own = load(ModelConfig.model_validate({"from_scratch": scratch, "tokenizer": "characters"}), seed=0)
    tokenizer = generic()
    fault = round_trip_fault(tokenizer, model.config, [tokenizer("2 + 4 = é\n").input_ids])
    assert round_trip_fault(own, model.config, [own("2 + 4 =\n6").input_ids]) is None
    if kept:
        assert fault is None
        return
    assert fault is not None and "Qwen2Tokenizer, which gives other ids" in fault
    with pytest.raises(CheckpointError, match="gives other ids"):
        save_model(model, tokenizer, tmp_path / "final")


def test_modes_are_those_of_other_files_and_all_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, honest = set[Path](), disk.sync
    monkeypatch.setattr(disk, "sync", lambda path: (synced.add(path), honest(path)))
    before = os.umask(0o027)
    try:
        save_model(*make_model(dtype="float32", adapter=Adapter(r=2)), tmp_path / "final", rows=ROWS)
    finally:
        os.umask(before)
    written = list(disk.files(tmp_path / "final"))
    assert {path.stat().st_mode & 0o777 for path in written} == {0o640} and len(written) > 6
    fresh = tmp_path / "final.partial"
    assert {fresh / path.relative_to(tmp_path / "final") for path in written} | {fresh, tmp_path} <= synced


@pytest.mark.parametrize("call", [(os, "replace"), (os, "fsync"), (shutil, "copyfile"), (Path, "write_text")])
def test_a_full_disk_leaves_what_was_there(call: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = make_model(dtype="float32")
    for name in ("final", "copy"):
        save_model(model, tokenizer, tmp_path / name, {"value": 1})
    before = (tmp_path / "final" / "model.safetensors").read_bytes()

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def save() -> None:
        if call[1] == "copyfile":
            shutil.rmtree(tmp_path / "copy")
            with monkeypatch.context() as patched:
                patched.setattr("shutil.copytree", full)
                copy_folder(tmp_path / "final", tmp_path / "copy")
        with monkeypatch.context() as patched:
            patched.setattr(*call, full)
            save_model(shaken(model), tokenizer, tmp_path / "final", {"value": 2})

    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        save()
    assert (tmp_path / "final" / "model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


def test_tokenizers_loaded_again_give_the_ids_of_spaces_and_lines(tmp_path: Path) -> None:
    model, tokenizer = make_model(dtype="float32")
    save_model(model, tokenizer, tmp_path / "final", rows=ROWS)
    text = "2 + 4 =\n\n 6\t"
    assert AutoTokenizer.from_pretrained(tmp_path / "final")(text).input_ids == tokenizer(text).input_ids


def test_float32_masters_are_saved_in_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
    model, tokenizer = make_model(dtype="float32", tie_word_embeddings=True)
    save_model(shaken(model), tokenizer, tmp_path / "final", rows=ROWS, dtype=torch.bfloat16)
    there = load_file(tmp_path / "final" / "model.safetensors")
    assert there.keys() == model.state_dict().keys() - {"lm_head.weight"}  # once
    assert all(torch.equal(value, model.state_dict()[name].bfloat16()) for name, value in there.items())
    assert json.loads((tmp_path / "final" / "config.json").read_text())["dtype"] == "bfloat16"
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "final", dtype="auto")
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32} and model.config.dtype != torch.bfloat16


def test_an_adapter_stays_in_float32_beside_a_model_that_is_saved_in_bfloat16(tmp_path: Path) -> None:
    model, tokenizer = make_model(dtype="float32", adapter=Adapter(r=2))
    save_model(shaken(model), tokenizer, tmp_path / "final", rows=ROWS, dtype=torch.bfloat16)
    kinds = [{value.dtype for value in load_file(path).values()} for path in sorted(tmp_path.rglob("*.safetensors"))]
    assert kinds == [{torch.float32}, {torch.bfloat16}]


def test_a_model_that_was_saved_in_another_dtype_than_asked_for_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posttrain.model.saving._as_saved", lambda model, dtype: model)
    with pytest.raises(CheckpointError, match=r"is torch\.float32 in place of torch\.bfloat16"):
        save_model(*make_model(dtype="float32"), tmp_path / "final", rows=ROWS, dtype=torch.bfloat16)


def test_a_model_that_was_rounded_otherwise_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(model: Any, dtype: torch.dtype) -> Any:
        for parameter in (other := copy.deepcopy(model)).parameters():
            bits = parameter.data.view(torch.int32) & ~0xFFFF  # towards 0, and not to the nearest
            parameter.data = bits.view(torch.float32).to(dtype)
        return other

    monkeypatch.setattr("posttrain.model.saving._as_saved", cut_off)
    with pytest.raises(CheckpointError, match="has other values"):
        save_model(*make_model(dtype="float32"), tmp_path / "final", rows=ROWS, dtype=torch.bfloat16)
