"""The traps of the loop, each as a test on a real model: splits, scaling, dropout, references, NaN, metrics, resuming."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback
from transformers.integrations.integration_utils import rewrite_logs

from cases import each_needs
from posttrain import PostTrainer, build_algorithm
from posttrain.errors import NonFiniteError
from posttrain.settings.model import Adapter
from posttrain.train.collect.demonstrations import collect_demonstrations
from tiny import make_examples, make_model, parameters
from train import naive

MakeTrainer = Callable[..., PostTrainer]
OFFLINE = ["sft", "dft", "asft", "iw_sft", "dpo", "ipo"]
LORA = Adapter(r=4, dropout=0.3)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _steps(trainer: PostTrainer) -> list[dict[str, Any]]:
    return _lines(Path(str(trainer.args.output_dir)) / "metrics.jsonl")


def _first_gradient(name: str, trainer: PostTrainer, model: Any) -> torch.Tensor:
    collection = trainer.run_state.collector.collect(model, 0, 0.0)
    start = naive.log_softmax(model, collection).detach()
    old, rows = naive.of_tokens(start, collection), range(len(collection.rows))
    return naive.gradient(build_algorithm(name), model, collection, rows, old=old, ref=start, at=1.0)


@pytest.mark.parametrize("name", OFFLINE)
def test_a_step_has_the_gradient_of_the_models_own_full_logits(name: str, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(name, max_steps=1, micro_rows=2, learning_rate=1.0)
    model: Any = trainer.model
    expected = _first_gradient(name, trainer, model)
    before = parameters(model)
    trainer.train()
    difference = (before - parameters(model) - expected).abs().max() / expected.abs().max()
    assert expected.abs().max() > 1e-3
    assert difference < 1e-10


@each_needs((name, {}) for name in OFFLINE)
def test_any_split_of_the_steps_gives_the_same_parameters(
    name: str, options: dict[str, Any], make_trainer: MakeTrainer
) -> None:
    assert not options
    splits = [{}, {"micro_rows": 1}, {"micro_rows": 3}, {"micro_tokens": 70}]
    trained = []
    for i, split in enumerate(splits):
        trainer = make_trainer(name, output=str(i), learning_rate=1e-3, **split)
        trainer.train()
        trained.append(parameters(trainer.model))
    for other in trained[1:]:
        assert torch.allclose(trained[0], other, rtol=0, atol=1e-12 * float(trained[0].abs().max()))
    assert not torch.equal(trained[0], parameters(make_model()[0]))


def test_the_number_of_micro_batches_varies_from_step_to_step(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("sft", micro_tokens=90, rows_per_step=3)
    counts = []
    for step in range(4):
        trainer.state.global_step = step
        [planned], _ = trainer.get_batch_samples(iter([step]), 1, torch.device("cpu"))
        counts.append(len(planned.micro))
    assert len(set(counts)) > 1, counts


def test_nothing_of_a_step_leaks_into_the_next(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("sft", micro_rows=1, max_steps=2)
    seen: list[float] = []
    original = trainer.training_step

    def watched(model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        seen.append(sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None))
        return original(model, inputs, num_items_in_batch)

    trainer.training_step = watched
    trainer.train()
    assert seen == [0.0, 0.0]


@pytest.mark.parametrize("name", ["dpo", "asft", "iw_sft"])
@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
def test_at_step_0_policy_and_reference_agree_though_the_config_has_dropout(
    name: str, adapter: Adapter | None, make_trainer: MakeTrainer
) -> None:
    model = make_model(adapter=adapter, attention_dropout=0.5)
    trainer = make_trainer(name, model=model, max_steps=1)
    trainer.train()
    [step] = _steps(trainer)
    expected = {"dpo": ("objective/dpo", math.log(2)), "asft": ("kl/start", 0.0), "iw_sft": ("loss", step.get("nll"))}
    key, value = expected[name]
    assert step[key] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", ["dpo", "asft"])
@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
def test_policy_and_reference_agree_exactly_in_bf16_too(
    name: str, adapter: Adapter | None, make_trainer: MakeTrainer
) -> None:
    model = make_model(dtype="float32", adapter=adapter)
    trainer = make_trainer(name, model=model, max_steps=2, learning_rate=0.0, bf16=True, evaluate=True)
    before = trainer.evaluate()
    trainer.train()
    key, value = {"dpo": ("objective/dpo", math.log(2)), "asft": ("kl/start", 0.0)}[name]
    assert [step[key] for step in _steps(trainer)] == pytest.approx([value, value], abs=1e-7)
    assert trainer.evaluate() == before


def test_sft_keeps_the_dropout_that_is_asked_for(make_trainer: MakeTrainer) -> None:
    losses = []
    for rate in (0.0, 0.5):
        trainer = make_trainer("sft", model=make_model(attention_dropout=rate), max_steps=1, output=str(rate))
        trainer.train()
        losses.append(_steps(trainer)[0]["loss"])
    assert losses[0] != losses[1]


@pytest.mark.parametrize("name", ["dpo", "asft"])
def test_the_reference_stays_the_start_model(name: str, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(name, max_steps=3, learning_rate=0.5)
    trainer.train()
    first, *_, last = _steps(trainer)
    key = {"dpo": "objective/dpo", "asft": "kl/start"}[name]
    assert first[key] != pytest.approx(last[key], abs=1e-6)


def test_lora_trains_the_adapter_only(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("asft", model=make_model(adapter=LORA), max_steps=3, learning_rate=1.0)
    model: Any = trainer.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.train()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all("lora_" in name for name in moved)
    assert _steps(trainer)[-1]["kl/start"] > 0


def test_tied_embeddings_get_both_gradients(make_trainer: MakeTrainer) -> None:
    model = make_model(tie_word_embeddings=True)
    trainer = make_trainer("sft", model=model, max_steps=1, learning_rate=1.0)
    expected = _first_gradient("sft", trainer, model[0])
    before = parameters(model[0])
    trainer.train()
    assert torch.allclose(before - parameters(model[0]), expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
def test_gradient_checkpointing_changes_nothing(adapter: Adapter | None, make_trainer: MakeTrainer) -> None:
    trained = []
    for on in (False, True):
        model = make_model(adapter=adapter)
        trainer = make_trainer("dpo", model=model, gradient_checkpointing=on, output=str(on))
        trainer.train()
        trained.append(parameters(trainer.model))
    assert torch.allclose(*trained, rtol=0, atol=1e-12)


def test_bf16_computes_in_bfloat16_over_float32_weights(make_trainer: MakeTrainer) -> None:
    losses = []
    for bf16 in (False, True):
        trainer = make_trainer("dft", model=make_model(dtype="float32"), bf16=bf16, max_steps=2, output=str(bf16))
        trainer.train()
        losses.append([step["nll"] for step in _steps(trainer)])
        trained: Any = trainer.model
        assert parameters(trained).isfinite().all()
        assert {p.dtype for p in trained.parameters()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.03)


def test_every_step_is_in_metrics_jsonl_whatever_logging_steps_says(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("dft", max_steps=4, logging_steps=1000)
    trainer.train()
    steps = _steps(trainer)
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    for step in steps:
        assert {"loss", "loss/dft", "nll", "grad_norm", "learning_rate", "train/tokens", "ratio/mean"} <= set(step)
        assert all(math.isfinite(value) for value in step.values())


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_losses_that_are_not_finite_end_the_run_without_an_update(clip: float, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("sft", max_steps=5, max_grad_norm=clip)
    model: Any = trainer.model
    with torch.no_grad():
        model.lm_head.weight[0] = math.nan
    before = parameters(model)
    with pytest.raises(NonFiniteError, match=r"Step 3: the loss.* is not finite, in 3 steps in a row.*row \d+") as error:
        trainer.train()
    assert error.value.exit_code == 5
    assert torch.equal(before.nan_to_num(), parameters(model).nan_to_num())
    dumped = [_lines(Path(str(trainer.args.output_dir)) / "nonfinite" / f"step-{n:06d}.jsonl") for n in (1, 2, 3)]
    assert all(line["where"].startswith("row ") and line["completion"] and line["prompt"] for line in dumped[0])
    assert [line["step"] for lines in dumped for line in lines[:1]] == [1, 2, 3]


@pytest.mark.parametrize("limit", [1, 2])
def test_gradients_that_are_not_finite_end_the_run_without_an_update(limit: int, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("sft", max_steps=5, trainer_options={"nonfinite_limit": limit})
    model: Any = trainer.model
    model.lm_head.weight.register_hook(lambda grad: grad * math.inf)
    before = parameters(model)
    with pytest.raises(NonFiniteError, match=f"Step {limit}: the norm of the gradient is not finite"):
        trainer.train()
    assert torch.equal(before, parameters(model))


def test_a_step_that_is_not_finite_is_left_out_and_the_run_goes_on(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("sft", max_steps=6, optim="adamw_torch", lr_scheduler_type="linear")
    model: Any = trainer.model
    bad = (1, 2, 4)  # never three in a row
    model.lm_head.weight.register_hook(lambda grad: grad * (math.nan if trainer.state.global_step in bad else 1.0))
    trainer.train()
    steps = _steps(trainer)
    assert [step["train/left_out"] for step in steps] == [0.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    assert all(math.isfinite(value) for step in steps for value in step.values())
    rates = [step["learning_rate"] for step in steps]
    assert rates[1] == rates[2] == rates[3] > rates[4] == rates[5]  # the schedule waits
    assert model.lm_head.weight.isfinite().all()


def test_the_validation_loss_is_the_loss_of_the_whole_set(make_trainer: MakeTrainer) -> None:
    small = make_trainer("dpo", evaluate=True, micro_rows=1)
    whole = make_trainer("dpo", evaluate=True, output="whole")
    ours, theirs = small.evaluate(), whole.evaluate()
    assert ours["eval/held_out/objective/dpo"] == pytest.approx(math.log(2), abs=1e-12)
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert ours["eval/held_out/preference/accuracy"] == 0.5  # ties with the reference itself
    low, high = (ours[f"eval/held_out/preference/accuracy/{end}"] for end in ("low", "high"))
    assert low < 0.5 < high


def test_trackers_get_the_names_of_the_contract(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("dpo", evaluate=True, max_steps=1, logging_steps=1, eval_strategy="steps", eval_steps=1)
    logged: list[dict[str, float]] = []

    class Tracker(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            logged.append(rewrite_logs(logs))

    trainer.add_callback(Tracker)
    trainer.train()
    names = {name for logs in logged for name in logs}
    assert {"train/loss", "train/objective/dpo", "train/tokens_per_second", "eval/held_out/objective/dpo"} <= names
    assert not any(name.startswith(("train/train/", "train/eval")) for name in names)


@pytest.mark.parametrize("method", ["_maybe_log_save_evaluate", "_get_grad_norm", "_prepare_for_training"])
def test_the_parents_private_methods_that_are_overridden_are_called_as_we_expect(method: str) -> None:
    expected = {
        "_maybe_log_save_evaluate": ["tr_loss", "grad_norm", "learning_rate"],
        "_get_grad_norm": ["model", "grad_norm"],
        "_prepare_for_training": ["max_steps", "train_dataloader", "resume_from_checkpoint"],
    }
    assert set(expected[method]) <= set(inspect.signature(getattr(Trainer, method)).parameters)


def test_each_evaluation_is_made_once(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("sft", evaluate=True, max_steps=4, eval_strategy="steps", eval_steps=2)
    trainer.train()
    lines = (Path(str(trainer.args.output_dir)) / "eval.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]


def test_a_data_set_with_trl_columns_is_taken_as_it_is(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    template = make_trainer("sft")
    rows = [{"prompt": f"what is {i} + {i}?", "completion": f"{'it is ' * (i % 5)}{2 * i}"} for i in range(24)]
    model, tokenizer = make_model()
    trainer = PostTrainer(
        model, build_algorithm("sft"), tokenizer=tokenizer, train_dataset=Dataset.from_list(rows), args=template.args
    )
    prepared = make_examples(model, tokenizer)
    taken: Any = trainer.train_dataset
    for ours, theirs in zip(taken, prepared, strict=True):
        assert ours.rows[0].completion.tolist() == theirs.rows[0].completion.tolist()


def test_a_micro_batch_without_rows_gives_zero_gradients(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("asft")
    model: Any = trainer.model
    examples: Any = trainer.train_dataset
    learner = trainer._learner
    step = learner.step(learner.open(model, collect_demonstrations(examples[:2], progress=0.0)), 0, 0.0)
    learner.loss(model, step, []).output.loss.backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and bool((g == 0).all()) for g in gradients)


class _OtherWeights(torch.optim.SGD):
    """Steps in the mode `train` only, as schedule-free optimizers do, and notes in which mode it is asked for what."""

    mode = "eval"

    def train(self) -> None:
        self.mode = "train"

    def eval(self) -> None:
        self.mode = "eval"

    def step(self, *arguments: Any, **options: Any) -> Any:
        assert self.mode == "train"
        return super().step(*arguments, **options)


def test_an_optimizer_with_other_weights_in_training_is_told_which_are_wanted(make_trainer: Any) -> None:
    seen: list[str] = []

    def sampled(step: int) -> dict[str, float]:
        seen.append(trainer.optimizer.optimizer.mode if step else "eval")
        return {}

    trainer = make_trainer("sft", trainer_options={"sample_evaluation": sampled}, eval_strategy="steps", eval_steps=1)
    trainer.optimizer = _OtherWeights(trainer.model.parameters(), lr=0.1)
    trainer.train()
    wrapped: Any = trainer.optimizer
    assert seen == ["eval"] * 4 and wrapped.optimizer.mode == "eval"
