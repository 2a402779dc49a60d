"""QLoRA over bitsandbytes' weights: what is trained, sampled, saved and gone on with is one model."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from adapters import NATS, logits, moved
from posttrain import PostTrainer
from posttrain.errors import SetupError
from posttrain.model.adapters.merging import own_names
from posttrain.model.adapters.rounded import Rounded, noted, rounded_layers, weight_count
from posttrain.model.frozen.reference import Reference
from posttrain.model.load import load
from posttrain.model.proofs.rows import ProbeRows
from posttrain.model.proofs.start import reference_of, switch_off_noise
from posttrain.model.saving import save_model
from posttrain.model.scoring import Scorer
from posttrain.model.weights import described_weights, engine_weights
from posttrain.settings.model import ModelConfig
from posttrain.telling import hearing
from tiny import make_model
from train.test_resume import differ, ended

pytestmark = pytest.mark.system
TYPES: dict[str, dict[str, Any]] = {
    "nf4": {"bits": 4, "type": "nf4"},
    "fp4": {"bits": 4, "type": "fp4"},
    "nf4 double": {"bits": 4, "type": "nf4", "double": True},
    "int8": {"bits": 8},
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4},
    "dora": {"kind": "dora", "r": 4},
    "rslora gaussian": {"kind": "rslora", "r": 4, "alpha": 8, "init": "gaussian"},
    "some": {"r": 4, "target_modules": ["q_proj", "down_proj"]},
    "a whole head beside": {"r": 4, "options": {"modules_to_save": ["lm_head"]}},
}
CASES = [*((one, "lora") for one in TYPES), *(("nf4 double", one) for one in ADAPTERS if one != "lora"), ("int8", "dora")]
QUANTILES = (0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434)
"""Of the paper's appendix E: nf4's values from 0 to the sixth above it."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    model, tokenizer = make_model(dtype="float32", initializer_range=0.1, hidden_size=64, num_attention_heads=2)
    save_model(model, tokenizer, tmp_path / "base")
    return tmp_path / "base"


def config(base: Path, of: str = "nf4 double", adapter: str | dict[str, Any] = "lora", **more: Any) -> ModelConfig:
    given = ADAPTERS[adapter] if isinstance(adapter, str) else adapter
    return ModelConfig.model_validate({"name": str(base), "adapter": given, "quantization": TYPES[of], **more})


def test_nf4_is_the_papers(base: Path) -> None:
    """Each weight is the nearest of 16 values, times the largest of its 64 neighbours; the values are the paper's."""
    whole, rounded = AutoModelForCausalLM.from_pretrained(base), load(config(base, "nf4"), seed=0)[0]
    layer = dict(rounded_layers(rounded))["base_model.model.model.layers.0.mlp.up_proj.base_layer"]
    weight, values = whole.model.layers[0].mlp.up_proj.weight.detach().reshape(-1, 64), layer.values().reshape(-1, 64)
    scale = weight.abs().amax(1, keepdim=True)
    table = (values / scale).unique(sorted=True).double()
    table = table[torch.cat([torch.tensor([True]), table.diff() > 1e-4])]
    assert len(table) == 16 and table[0] == -1 and table[-1] == 1
    torch.testing.assert_close(table[7:13], torch.tensor(QUANTILES, dtype=torch.float64), rtol=0, atol=1e-6)
    nearest = ((weight / scale)[..., None] - table.float()).abs().amin(-1) * scale
    torch.testing.assert_close((values - weight).abs(), nearest, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("of", "adapter"), CASES)
def test_one_model_is_trained_sampled_and_saved(of: str, adapter: str, base: Path, tmp_path: Path) -> None:
    """Engines, final/ and final/adapter have the model that was trained; a fresh adapter and its reference are the rounded
    base, which is not the whole one.
    """
    with hearing() as heard:
        model, tokenizer = load(config(base, of, adapter), seed=3)
    assert [one.rule for one in heard if one.rule == "rounded"] == ["rounded"]
    whole = AutoModelForCausalLM.from_pretrained(base)
    assert weight_count(model) == sum(
        p.numel() for p in [*whole.parameters(), *(p for p in model.parameters() if p.requires_grad)]
    )
    rounded = logits(model)
    assert float((rounded - logits(whole)).abs().max()) > 1e-3
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), rounded, rtol=0, atol=NATS)
    frozen = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moved(model, 0.02)
    after = logits(model)
    assert float((after - rounded).abs().max()) > 1e-3
    sent = dict(engine_weights(model))
    assert [(one.name, one.dtype, one.shape) for one in described_weights(model)] == [
        (name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sent.items()
    ]
    whole.load_state_dict(sent, strict=True)
    torch.testing.assert_close(logits(whole), after, rtol=0, atol=NATS)
    save_model(model, tokenizer, tmp_path / "final", rows=[[60, 61, 62]])
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "final")), after, rtol=0, atol=NATS)
    adapter_folder = tmp_path / "final" / "adapter"
    further = config(base, of, {"continue": str(adapter_folder)})
    for again in (ModelConfig(name=str(adapter_folder)), further):
        torch.testing.assert_close(logits(load(again, seed=4)[0]), after, rtol=0, atol=NATS)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, frozen[name])}
    assert changed and all(".lora_" in name or "modules_to_save" in name for name in changed)
    with hearing() as heard:
        load(further.model_copy(update={"quantization": None}), seed=4)
    assert any("stands here over it in whole numbers" in one.sentence for one in heard)


@pytest.mark.parametrize(("of", "adapter"), [*((one, "lora") for one in TYPES), ("nf4 double", "dora"), ("int8", "dora")])
def test_training_and_evaluation_and_gradients_are_those_of_whole_matrices(of: str, adapter: str, base: Path) -> None:
    """Also where products are bfloat16, and after the layers have moved."""
    model, tokenizer = load(config(base, of, adapter), seed=3)
    moved(model, 0.02)
    switch_off_noise(model, len(tokenizer))  # to 1e-7 nats
    twin = AutoModelForCausalLM.from_pretrained(base)
    twin.load_state_dict(dict(engine_weights(model)))
    ids = torch.arange(60, 90)[None]
    slopes = dict[str, torch.Tensor]()
    for name, one in {"rounded": model, "whole": twin}.items():
        inputs = one.get_input_embeddings()(ids).detach().requires_grad_()
        one(inputs_embeds=inputs, labels=ids).loss.backward()
        slopes[name] = inputs.grad
    torch.testing.assert_close(slopes["rounded"], slopes["whole"], rtol=1e-4, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad(), model.disable_adapter():
        x = torch.randn(3, 64)
        for _, layer in rounded_layers(model):
            if layer.in_features == 64:
                assert torch.equal(layer(x), nn.functional.linear(x, layer.values(), layer.bias))
    before = logits(model)
    model._apply(lambda tensor: tensor.clone())  # as `to` does
    assert torch.equal(logits(model), before)


def test_the_reference_is_the_rounded_start(base: Path) -> None:
    model, tokenizer = load(config(base), seed=3)
    start = ProbeRows.of((), len(tokenizer))
    before = start.logp(model)
    switched, copied = reference_of(model, len(tokenizer), shared_out=False), Reference(model, apart=True)
    assert switched.is_policy
    held = {id(p) for p in copied._model.parameters()} - {id(p) for p in model.parameters()}
    assert len(held) == sum(p.requires_grad for p in model.parameters())
    copied.place(Accelerator(cpu=True), None)
    moved(model, 0.02)
    inputs, mask = start.inputs()
    for one in (switched, copied):
        torch.testing.assert_close(one.logp(inputs, mask, Scorer("whole"))[mask], before, rtol=0, atol=NATS)
    assert own_names(model) == {name for name, p in model.named_parameters() if p.requires_grad}


def test_what_cannot_be_is_refused(base: Path, tmp_path: Path) -> None:
    theirs = BitsAndBytesConfig(load_in_4bit=True)
    quantised = AutoModelForCausalLM.from_pretrained(base, quantization_config=theirs)
    quantised.save_pretrained(tmp_path / "few")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "few")
    for few in (ModelConfig(name=str(tmp_path / "few")), config(tmp_path / "few")):
        with pytest.raises(SetupError, match="its files are quantised"):
            load(few, seed=0)
    with pytest.raises(SetupError, match="adapter does not fit"):
        load(config(base, adapter={"target_modules": ["v_proj"], "options": {"modules_to_save": ["q_proj"]}}), seed=0)


@pytest.mark.parametrize(("of", "adapter"), [("nf4 double", "lora"), ("int8", "dora")])
@pytest.mark.filterwarnings("ignore")
def test_a_run_goes_on_as_if_never_broken_off(
    of: str, adapter: str, base: Path, make_trainer: Callable[..., PostTrainer]
) -> None:
    def trainer(**options: Any) -> PostTrainer:
        return make_trainer(
            "dpo",
            model=load(config(base, of, adapter), seed=0),
            optim="adamw_torch",
            learning_rate=1e-3,
            gradient_checkpointing=True,
            evaluate=True,
            eval_strategy="steps",
            eval_steps=2,
            **options,
        )

    whole = trainer(save_strategy="steps", save_steps=2)
    model: Any = whole.model
    start = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    whole.train()
    expected = ended(whole)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor.cpu(), start[name])}
    assert changed and all(".lora_" in name for name in changed)
    checkpoint = Path(str(whole.args.output_dir)) / "checkpoint-2"
    assert noted(checkpoint) == config(base, of).quantization and any(isinstance(m, Rounded) for m in model.modules())
    again = trainer()
    again.run_files.resume_at(2)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert not differ(expected, ended(again))


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "posttrain", *arguments], cwd=folder, capture_output=True, text=True)


def test_a_run_by_the_command_with_rollouts_and_two_processes(base: Path, tmp_path: Path) -> None:
    """Sampled, trained, saved and merged; in two processes the policy begins and stays the same in both."""
    values: dict[str, Any] = {
        "model": {"name": "base", "adapter": {"r": 4}, "quantization": {"bits": 4, "double": True}},
        "algorithm": {"name": "grpo", "kl_coef": 0.1},
        "data": {"train": {"task": "chain", "rows": 8}},
        "rollout": {"n": 2, "questions_per_step": 2, "max_tokens": 4},
        "training": {"max_steps": 2, "learning_rate": 0.01},
        "output_dir": "out",
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    for name, more in {"out": (), "two": ("--set", "output_dir=two", "--set", "distributed={processes: 2}")}.items():
        done = command("run", "recipe.yaml", *more, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "are rounded to nf4 with double quantization" in done.stderr
        assert math.isfinite(float(logits(AutoModelForCausalLM.from_pretrained(tmp_path / name / "final")).sum()))
    done = command("merge", "out", "--output", "merged", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    there = [logits(AutoModelForCausalLM.from_pretrained(tmp_path / name)) for name in ("merged", "out/final")]
    torch.testing.assert_close(*there, rtol=0, atol=NATS)
    done = command("serve", "out/final/adapter", "--engine", "vllm", folder=tmp_path)
    assert done.returncode == 4 and "over a base of few bits" in done.stderr
