"""An adapter of every kind, and of LoRA's other beginnings, that fits the tiny model of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from posttrain.model.adapters.merging import own_names
from posttrain.model.load import load
from posttrain.model.saving import save_model
from posttrain.model.weights import described_weights, engine_weights
from posttrain.settings.model import Adapter, ModelConfig
from tiny import make_model

ATTENTION = ["q_proj", "v_proj", "o_proj"]
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4},
    "dora": {"r": 4},
    "rslora": {"r": 4},
    "boft": {},
    "c3a": {"options": {"block_size": 16}},
    "deft": {"r": 4},
    "delora": {"r": 4},
    "fourierft": {"options": {"n_frequency": 50}},
    "frod": {},
    "glora": {"r": 4},
    "gralora": {"r": 4, "alpha": 8},
    "hira": {"r": 4},
    "hra": {"r": 4},
    "ia3": {},
    "ln_tuning": {},
    "loha": {"r": 4},
    "lokr": {"r": 4},
    "miss": {"r": 4},
    "oft": {"options": {"oft_block_size": 8}},
    "osf": {"options": {"effective_rank": 8}},
    "peanut": {"r": 4},
    "psoft": {"r": 4},
    "pvera": {"r": 8},
    "randlora": {"r": 8, "alpha": 16},
    "road": {"options": {"group_size": 8}},
    "shira": {"r": 4},
    "supertuning": {},
    "tinylora": {"r": 2},
    "trainable_tokens": {"options": {"token_indices": [60, 79, 89]}},
    "unilora": {"r": 4},
    "vblora": {"r": 4, "options": {"vector_length": 16, "num_vectors": 8}},
    "vera": {"r": 8},
    "waveft": {"options": {"n_frequency": 50}},
}
"""By kind."""
BEGINNINGS: dict[str, dict[str, Any]] = {
    **{init: {"r": 4, "init": init} for init in ("gaussian", "orthogonal", "mica", "olora", "pissa", "pissa_niter_4")},
    "dora by pissa": {"kind": "dora", "r": 4, "init": "pissa"},
    "rslora by olora": {"kind": "rslora", "r": 4, "alpha": 2, "init": "olora"},
    "a whole head beside": {"r": 4, "options": {"modules_to_save": ["lm_head"]}},
    "tokens beside": {"r": 4, "options": {"trainable_token_indices": [60, 79, 89]}},
    "an embedding": {"r": 4, "target_modules": ["embed_tokens", "q_proj"]},
    "ranks": {"r": 4, "init": "pissa", "options": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 8}}},
}
"""Of LoRA."""
CASES = {**{kind: {"kind": kind, **options} for kind, options in OPTIONS.items()}, **BEGINNINGS}


def adapter(case: str) -> Adapter:
    return Adapter.model_validate(CASES[case])


def moved(model: Any, by: float = 0.01, seed: int = 1) -> None:
    """What is trained gets a step in some direction, as large for every tensor beside itself."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(by * torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype))


NATS = 5e-6


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(60, 90)[None]).logits.double().log_softmax(-1)


def small(case: str | None, **fields: Any) -> tuple[Any, Any]:
    return make_model(dtype="float32", initializer_range=0.1, adapter=None if case is None else adapter(case), **fields)


def assert_weights(case: str) -> None:
    """A fresh adapter changes nothing; a trained one is in the weights that engines get, and nothing else has changed."""
    plain = small(None)[0]
    model, _ = small(case)
    torch.testing.assert_close(logits(model), logits(plain), rtol=0, atol=NATS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moved(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and trained <= own_names(model)
    trained = {
        name for name, tensor in model.state_dict(keep_vars=True).items() if tensor.requires_grad
    }  # some several times
    after = logits(model)
    assert float((after - logits(plain)).abs().max()) > 1e-3
    sent = dict(engine_weights(model))
    assert [(one.name, one.dtype, one.shape) for one in described_weights(model)] == [
        (name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sent.items()
    ]
    plain.load_state_dict(sent, strict=True)
    torch.testing.assert_close(logits(plain), after, rtol=0, atol=NATS)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed <= trained


def assert_folders(case: str, folder: Path) -> None:
    """final/ is the model with its adapter, and so is final/adapter on the base that it was made for."""
    base, tokenizer = small(None)
    save_model(base, tokenizer, folder / "base")
    start = ModelConfig(name=str(folder / "base"), adapter=adapter(case))
    model, _ = load(start, seed=3)
    moved(model)
    save_model(model, tokenizer, folder / "final", rows=[[60, 61, 62]])
    whole = AutoModelForCausalLM.from_pretrained(folder / "final")
    torch.testing.assert_close(logits(whole), logits(model), rtol=0, atol=NATS)
    further = Adapter.model_validate({"continue": str(folder / "final" / "adapter")})
    again, _ = load(start.model_copy(update={"adapter": further}), seed=4)
    torch.testing.assert_close(logits(again), logits(model), rtol=0, atol=NATS)
    assert any(p.requires_grad for p in again.parameters())
