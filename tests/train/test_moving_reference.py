"""The reference that follows the policy: what it becomes, what a run goes on from, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from posttrain import PostTrainer
from posttrain.errors import CheckpointError, SetupError
from posttrain.settings.model import MovingReference
from recipes import SCRATCH, Command, recipe
from tiny import make_model, parameters

MakeTrainer = Callable[..., PostTrainer]


def held(trainer: PostTrainer) -> torch.Tensor:
    """The reference's own parameters, as `parameters` gives those of a model."""
    assert trainer.run_state.reference is not None
    return torch.cat([value.double().flatten() for value in trainer.run_state.reference.state().values()])


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mix", [1.0, 0.25])
def test_after_so_many_steps_it_is_the_mixture(make_trainer: MakeTrainer, mix: float) -> None:
    start = parameters(make_model()[0])
    trainer = make_trainer("dpo", trainer_options={"reference": MovingReference(refresh=3, mix=mix)}, max_steps=3)
    assert close(held(trainer), start)
    trainer.train()
    policy = parameters(trainer.model)
    assert not close(policy, start)
    assert close(held(trainer), mix * policy + (1 - mix) * start)


@pytest.mark.parametrize(
    ("name", "options"),
    [("dpo", {}), ("grpo", {"rollouts": 3}), ("dpo", {"rollouts": 3, "pairs": {}}), ("sdft", {"rollouts": 2})],
)
def test_a_run_goes_on_with_the_reference_that_it_had(make_trainer: MakeTrainer, name: str, options: dict[str, Any]) -> None:
    moving = {"options": options, "trainer_options": {"reference": MovingReference(refresh=2, mix=0.5)}}
    whole = make_trainer(name, output="whole", save_strategy="steps", save_steps=3, **moving)
    whole.train()
    other = make_trainer(name, output="other", **moving)
    other.train(resume_from_checkpoint=str(Path(str(whole.args.output_dir)) / "checkpoint-3"))
    still = make_trainer(name, output="still", options=options)
    still.train()
    assert torch.equal(parameters(whole.model), parameters(other.model)) and torch.equal(held(whole), held(other))
    assert not torch.equal(parameters(whole.model), parameters(still.model))


def test_rows_that_are_read_again_are_compared_with_the_reference_as_it_is(make_trainer: MakeTrainer) -> None:
    """A copy at every step compares the policy with itself: the margin is 0 each time, also in later epochs."""
    trainer = make_trainer("dpo", trainer_options={"reference": MovingReference(refresh=1)}, max_steps=8)
    trainer.train()
    lines = (Path(str(trainer.args.output_dir)) / "metrics.jsonl").read_text().splitlines()
    margins = [json.loads(line).get("preference/margin") for line in lines]
    assert len(margins) == 8 and max(map(abs, margins)) < 1e-5


def test_a_checkpoint_of_one_that_moved_is_none_of_a_run_in_which_it_stays(make_trainer: MakeTrainer) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2}
    moving = make_trainer("dpo", output="moving", trainer_options={"reference": MovingReference(refresh=2)}, **saving)
    moving.train()
    with pytest.raises(CheckpointError, match="whose reference moved"):
        make_trainer("dpo").train(resume_from_checkpoint=str(Path(str(moving.args.output_dir)) / "checkpoint-2"))


def test_what_compares_with_none_has_none_to_move(make_trainer: MakeTrainer) -> None:
    with pytest.raises(SetupError, match="no start model that could be moved"):
        make_trainer("sft", trainer_options={"reference": MovingReference(refresh=2)})


def test_each_stage_has_its_own(posttrain: Command, tmp_path: Path) -> None:
    """As long as one compares with a start model: the plan does not ask it of the others."""
    stages = [{"algorithm": {"name": "sft"}}, {"algorithm": {"name": "dpo"}, "model": {"reference": {"refresh": 2}}}]
    code, out, err = posttrain("run", recipe(stages=stages), "--dry-run")
    assert code == 0, err
    assert "dpo: the reference follows" in out and "sft: the reference follows" not in out


def test_a_checkpoint_without_it_is_none(make_trainer: MakeTrainer) -> None:
    still = make_trainer("dpo", output="still", save_strategy="steps", save_steps=2)
    still.train()
    moving = make_trainer("dpo", output="moving", trainer_options={"reference": MovingReference(refresh=2)})
    with pytest.raises(CheckpointError, match="did not move"):
        moving.train(resume_from_checkpoint=str(Path(str(still.args.output_dir)) / "checkpoint-2"))


def test_below_an_adapter_it_holds_the_adapter_alone(make_trainer: MakeTrainer) -> None:
    policy, tokenizer = make_model()
    adapted = get_peft_model(policy, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    moving = {"reference": MovingReference(refresh=2)}
    trainer = make_trainer("dpo", model=(adapted, tokenizer), trainer_options=moving, max_steps=2)
    trainer.train()
    trained = torch.cat([p.detach().double().flatten() for p in adapted.parameters() if p.requires_grad])
    assert torch.equal(held(trainer), trained) and trained.abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"distributed": {"processes": 2, "mode": "fsdp2"}}, "model.reference.refresh: the reference follows a policy"),
        ({"algorithm": {"name": "sft"}}, "model.reference: sft compares with no start model"),
        ({"algorithm": {"name": "dpo"}, "refresh": -1}, "model.reference.refresh"),
        ({"algorithm": {"name": "dpo"}, "mix": 0.0}, "model.reference.mix"),
        ({"algorithm": {"name": "dpo"}, "refresh": 0}, "mix: it is of a reference that moves"),
    ],
)
def test_what_cannot_be_meant_is_refused(posttrain: Command, tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    moving = {"refresh": changes.pop("refresh", 4), "mix": changes.pop("mix", 0.6)}
    given = {"algorithm": {"name": "dpo"}, **changes, "model": {**SCRATCH, "reference": moving}}
    code, _, err = posttrain("run", recipe(**given), "--dry-run")
    assert code == 2 and told in err


def test_a_recipe_says_so(posttrain: Command, tmp_path: Path) -> None:
    model = {**SCRATCH, "reference": {"refresh": 1, "mix": 0.6}}
    code, _, err = posttrain(
        "run", recipe(algorithm={"name": "dpo"}, model=model, training={"max_steps": 2, "save_every": 1})
    )
    assert code == 0, err
    assert (tmp_path / "out" / "checkpoint-2" / "reference.safetensors").is_file()
