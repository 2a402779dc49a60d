"""Adapters of every kind: one vLLM takes the weights of one after the other, transformers samples from them, folders hold
them, and runs go on with them bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import CASES, adapter, assert_folders, assert_weights, moved, small
from posttrain import HFEngine, PostTrainer, Request, Sampling, VLLMConfig, VLLMEngine
from posttrain.settings.adapters.kinds import BY_NAME
from tiny import make_model
from train.test_resume import differ, ended

pytestmark = pytest.mark.system
BEGIN_AT_0 = [
    case for case, given in CASES.items() if given.get("kind") is None or BY_NAME[given["kind"]].start != "elsewhere"
]
ENGINES = 1e-4  # nats


@pytest.mark.parametrize("case", BEGIN_AT_0)
def test_a_fresh_one_changes_nothing(case: str) -> None:
    assert_weights(case)


@pytest.mark.parametrize("case", CASES)
def test_folders_hold_it(case: str, tmp_path: Path) -> None:
    assert_folders(case, tmp_path)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_a_run_goes_on_as_if_never_broken_off(case: str, make_trainer: Callable[..., PostTrainer]) -> None:
    def trainer(**options: Any) -> PostTrainer:
        noisy = case == "pvera"  # which draws numbers in training, so that log-probs cannot be compared
        return make_trainer(
            "sft" if noisy else "dpo",
            model=make_model(dtype="float32", initializer_range=0.1, adapter=adapter(case)),
            optim="adamw_torch",
            learning_rate=1e-3,
            evaluate=True,
            eval_strategy="steps",
            eval_steps=2,
            **options,
        )

    whole = trainer(save_strategy="steps", save_steps=2)
    model: Any = whole.model
    start = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    trained = {name for name, tensor in model.state_dict(keep_vars=True).items() if tensor.requires_grad}
    whole.train()
    expected = ended(whole)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor.cpu(), start[name])}
    assert changed and changed <= trained
    again = trainer()
    again.run_files.resume_at(2)
    again.train(resume_from_checkpoint=str(Path(str(again.args.output_dir)) / "checkpoint-2"))
    assert not differ(expected, ended(again))


@pytest.mark.filterwarnings("ignore")
def test_one_engine_takes_the_weights_of_all_kinds_one_after_the_other() -> None:
    base, tokenizer = small(None, max_position_embeddings=512)
    engine = VLLMEngine(base.eval(), tokenizer, VLLMConfig(probe_every=1))
    asked = [Request([60, 61, 62], n=2)]
    try:
        for version, case in enumerate(CASES):
            model, _ = small(case, max_position_embeddings=512)
            moved(model)
            engine.sync(model.eval(), version)  # which scores the probe
            assert engine.probe_difference < ENGINES, case
            own = HFEngine(model, tokenizer)
            own.sync(model, version)
            for one in (engine, own):
                for answer in one.generate(asked, Sampling(max_tokens=6))[0]:
                    ids = torch.tensor([[60, 61, 62, *answer.tokens]])
                    with torch.no_grad():
                        logp = model(input_ids=ids).logits[0, 2:-1].log_softmax(-1)
                    expected = logp.gather(1, ids[0, 3:, None])[:, 0]
                    torch.testing.assert_close(torch.tensor(answer.logprobs), expected, rtol=0, atol=ENGINES)
    finally:
        engine.close()
