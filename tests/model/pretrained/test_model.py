"""A model that is read from a folder is all of that model, or it is refused with the names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from posttrain.errors import SetupError
from posttrain.model.load import load
from posttrain.settings.model import Adapter, ModelConfig
from posttrain.telling import hearing
from recipes import Command, recipe
from tiny import make_model

Weights = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "start")


def saved(folder: Path, **fields: Any) -> Path:
    model, tokenizer = make_model(dtype="float32", **fields)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def change(folder: Path, of: Callable[[Weights], Weights]) -> None:
    save_file(of(load_file(folder / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})


def read(folder: Path | str, **options: Any) -> Any:
    return load(ModelConfig(name=str(folder), **options), seed=0)[0]


def test_weights_that_are_not_there_are_refused_by_name(folder: Path, posttrain: Command) -> None:
    change(folder, lambda weights: {k: v for k, v in weights.items() if k != "lm_head.weight" and "0.mlp.down" not in k})
    with pytest.raises(SetupError, match=r"lack lm_head\.weight, model\.layers\.0\.mlp\.down_proj\.weight; these would be"):
        read(folder)
    code, _, err = posttrain("run", recipe(model={"name": str(folder)}))
    assert code == 4 and "lack lm_head.weight" in err and not Path("out").exists()


def test_weights_under_other_names_are_refused(folder: Path) -> None:
    change(folder, lambda weights: {f"wrong.{k}": v for k, v in weights.items()})
    with pytest.raises(SetupError, match=r"lack .* and 23 more tensors"):
        read(folder)


def test_weights_of_another_shape_are_refused_with_both(folder: Path) -> None:
    change(folder, lambda weights: {k: v[:5] if "0.mlp.down" in k else v for k, v in weights.items()})
    with pytest.raises(SetupError, match=r"down_proj\.weight \(5x48 in the file, 32x48 in the model\)"):
        read(folder)


def test_weights_that_the_model_has_no_place_for_are_told(folder: Path) -> None:
    change(folder, lambda weights: {**weights, "vision.weight": torch.zeros(2)})
    with hearing() as heard:
        read(folder)
    [told] = heard
    assert told.rule == "weights-not-used" and "vision.weight" in told.sentence


def test_a_head_that_is_tied_to_the_embedding_lacks_nothing(tmp_path: Path) -> None:
    with hearing() as heard:
        model = read(saved(tmp_path / "tied", tie_word_embeddings=True))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight and not heard


def test_pickles_are_not_opened(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    read(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(SetupError, match=r"pytorch_model\.bin, a pickle, which is not opened: only safetensors"):
        read(folder)


@pytest.mark.parametrize("name", ["{}/none", "runs/a/final", "./none", "{}/start/config.json"])
def test_a_path_that_is_no_folder_is_not_taken_for_a_name_on_the_hub(name: str, folder: Path) -> None:
    with pytest.raises(SetupError, match=r"there is no such folder|is a file; name the folder"):
        read(name.format(folder.parent))


def test_a_home_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = read(folder)
    monkeypatch.setenv("HOME", str(folder.parent))
    assert torch.equal(read("~/start").lm_head.weight, wanted.lm_head.weight)


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({"do_sample": False, "temperature": 0.6, "top_p": 0.9}, "temperature: 0.6, top_p: 0.9"),
        ({"length_penalty": 2.0}, "2.0"),
    ],
)
def test_a_generation_config_that_cannot_be_saved_is_mended_and_told(
    fields: dict[str, Any], taken: str, folder: Path, tmp_path: Path
) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2], **fields}))
    with hearing() as heard:
        model = read(folder)
    [told] = heard
    assert told.rule == "generation-config" and taken in told.sentence
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text())["eos_token_id"] == [1, 2]


def test_a_generation_config_that_samples_is_left_as_it_is(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 0.6, "eos_token_id": 1}))
    with hearing() as heard:
        assert read(folder).generation_config.temperature == 0.6
    assert not heard


class TestAnAdaptersFolder:
    @pytest.fixture
    def adapter(self, folder: Path, tmp_path: Path) -> Path:
        base = AutoModelForCausalLM.from_pretrained(folder)
        adapted: Any = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
        adapted.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    def test_is_its_base_with_the_adapter_and_goes_on(self, adapter: Path, folder: Path) -> None:
        model, ids = read(adapter), torch.arange(8)[None]
        whole = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(adapter))
        with torch.no_grad():
            assert torch.equal(model.eval()(ids).logits, whole.eval()(ids).logits)
        assert {name.rpartition("lora_")[1] for name, p in model.named_parameters() if p.requires_grad} == {"lora_"}

    def test_takes_no_second_one(self, adapter: Path) -> None:
        with pytest.raises(SetupError, match=r"leave model\.adapter out"):
            read(adapter, adapter=Adapter(r=2))

    def test_names_what_is_missing(self, adapter: Path, folder: Path) -> None:
        file = adapter / "adapter_model.safetensors"
        save_file({k: v for k, v in load_file(file).items() if "layers.1" not in k}, file)
        with pytest.raises(SetupError, match=r"does not fit .*layers\.1\.self_attn\.q_proj"):
            read(adapter)
        shutil.rmtree(folder)
        with pytest.raises(SetupError, match="there is no such folder"):
            read(adapter)

    def test_that_names_no_base_is_refused(self, adapter: Path) -> None:
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
        with pytest.raises(SetupError, match="does not say of which model"):
            read(adapter)
