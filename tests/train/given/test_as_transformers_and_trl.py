"""What transformers' Trainer and TRL's take is taken, and what is not gets a sentence."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.sft_trainer import SFTTrainer

from posttrain import PostTrainer, Sampling, Weighted, build_algorithm
from posttrain.errors import RecipeError, SetupError
from posttrain.model.saving import save_model
from posttrain.settings.trainer.arguments import IDLE, REFUSED
from posttrain.telling import hearing
from posttrain.train.given.keywords import ADAPTER, ALIASES, INSTEAD, PARENTS
from tiny import Thirds, make_model, parameters

ROWS = [{"prompt": f"{i}+{i}=", "completion": str(2 * i), "answer": str(2 * i)} for i in range(12)]
TALKS = [
    {"messages": [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["answer"]}]} for r in ROWS
]
PAIRS = [{"prompt": row["prompt"], "chosen": row["answer"], "rejected": f"{row['answer']}0"} for row in ROWS]
SAMPLING = Sampling(max_tokens=4, temperature=1.2)


@pytest.fixture
def arguments(tmp_path: Path) -> Any:
    def make(**more: Any) -> TrainingArguments:
        usual = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.05, "optim": "sgd", "use_cpu": True}
        quiet = {"report_to": [], "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True}
        return TrainingArguments(**{"output_dir": str(tmp_path / "run"), **usual, **quiet, **more})

    return make


@pytest.fixture
def trainer(arguments: Any) -> Any:
    def make(algorithm: Any = "sft", *, model: Any = None, args: Any = None, **given: Any) -> PostTrainer:
        policy, tokenizer = model or make_model(dtype="float32")
        usual: dict[str, Any] = {"processing_class": tokenizer, "train_dataset": Dataset.from_list(ROWS)}
        return PostTrainer(policy, algorithm, args=args or arguments(), **{**usual, **given})

    return make


def lines(made: PostTrainer, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(str(made.args.output_dir)) / name).read_text().splitlines()]


def test_a_keyword_of_theirs_and_an_algorithm_by_name_train_what_ours_train(trainer: Any, arguments: Any) -> None:
    theirs = trainer("sft")
    theirs.train()
    model, tokenizer = make_model(dtype="float32")
    given = {"tokenizer": tokenizer, "train_dataset": Dataset.from_list(ROWS), "args": arguments()}
    ours = PostTrainer(model, build_algorithm("sft"), **given)
    ours.train()
    assert torch.equal(parameters(theirs.model), parameters(ours.model))
    assert not torch.equal(parameters(ours.model), parameters(make_model(dtype="float32")[0]))


def test_a_model_by_folder_brings_its_tokenizer(arguments: Any, tmp_path: Path) -> None:
    model, tokenizer = make_model(dtype="float32")
    save_model(model, tokenizer, tmp_path / "start", {})
    made = PostTrainer(
        str(tmp_path / "start"), {"name": "dpo", "beta": 0.3}, train_dataset=Dataset.from_list(PAIRS), args=arguments()
    )
    assert torch.equal(parameters(made.model), parameters(model))
    assert "beta=0.3" in repr(made._algorithm)
    made.train()
    assert lines(made, "metrics.jsonl")[0]["objective/dpo"] == pytest.approx(0.693147, abs=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "rows"), [("sft", ROWS), ("sft", TALKS), ("dpo", PAIRS)], ids=["rows", "talks", "pairs"]
)
@pytest.mark.parametrize("several", [False, True])
def test_an_evaluation_set_is_a_data_set_or_several_by_name(trainer: Any, algorithm: str, rows: Any, several: bool) -> None:
    held_out: Any = Dataset.from_list(rows[:4])
    made = trainer(
        algorithm,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=DatasetDict({"one": held_out, "two": held_out}) if several else held_out,
    )
    metrics = made.evaluate()
    for name in ("one", "two") if several else ("held_out",):
        assert f"eval/{name}/loss" in metrics
    assert {name.split("/")[1] for name in metrics} == ({"one", "two"} if several else {"held_out"})


def test_functions_and_objects_that_judge_are_rewards(trainer: Any) -> None:
    seen: list[dict[str, Any]] = []

    def evens(prompts: list[str], completions: list[str], answer: list[str], **columns: Any) -> list[float]:
        seen.append({"prompts": prompts, "answer": answer, **columns})
        return [float(len(text) % 2 == 0) for text in completions]

    def short(completions: list[str]) -> Any:
        return [-float(len(text)) for text in completions]

    class Bare:
        def judge(self, group: Any) -> list[float]:
            return [float(tokens[0] % 2) for tokens in group.tokens]

    made = trainer(
        {"name": "grpo", "rollouts": 4},
        reward_funcs=[evens, Weighted(cast(Any, short), weight=0.1), Bare()],
        sampling=SAMPLING,
    )
    made.train()
    [step, _] = lines(made, "metrics.jsonl")
    assert {"reward/evens", "reward/short", "reward/Bare"} <= set(step)
    asked = seen[0]["prompts"][0]
    assert seen[0]["prompts"] == [asked] * 4 and set(seen[0]["answer"]) == {r["answer"] for r in ROWS if r["prompt"] == asked}
    assert [len(ids) for ids in seen[0]["completion_ids"]] and step["reward/mean"] != 0
    assert not torch.equal(parameters(made.model), parameters(make_model(dtype="float32")[0]))


def test_one_reward_and_no_engine_will_do_and_max_tokens_follow_from_sampling(trainer: Any) -> None:
    made = trainer({"name": "dr_grpo", "rollouts": 4}, rewards=Thirds(), sampling=SAMPLING)
    made.train()
    assert lines(made, "metrics.jsonl")[0]["rollout/length"] <= 4


def test_a_reward_function_that_fails_masks_rows_and_ends_the_run_with_its_sentence(trainer: Any) -> None:
    def needy(completions: list[str], nowhere: list[str]) -> list[float]:
        return [1.0 for _ in completions]

    made = trainer({"name": "grpo", "rollouts": 4}, rewards=needy, sampling=SAMPLING, args=None)
    with pytest.raises(Exception, match="nowhere, which is no column") as error:
        for _ in range(50):
            made.train()
    assert getattr(error.value, "exit_code", None) == 7


async def later(completions: list[str]) -> list[float]:
    return [1.0 for _ in completions]


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        ("org/reward-model", "is a name: pass a function"),
        (Thirds, r"is a class: pass an object of it, Thirds\("),
        (torch.nn.Linear(1, 1), "Linear is a model"),
        (3, "int is neither a function nor"),
        (later, "later is a coroutine"),
    ],
)
def test_what_is_no_reward_is_refused(trainer: Any, reward: Any, says: str) -> None:
    with pytest.raises(SetupError, match=says):
        trainer({"name": "grpo", "rollouts": 4}, rewards=[reward], sampling=SAMPLING)


@pytest.mark.parametrize("theirs", [Trainer, SFTTrainer, DPOTrainer, GRPOTrainer])
def test_every_keyword_of_theirs_is_taken_or_has_a_sentence(theirs: Any) -> None:
    own = {*inspect.signature(PostTrainer).parameters, "self"}
    assert set(inspect.signature(theirs.__init__).parameters) <= {*own, *ALIASES, *PARENTS, ADAPTER, *INSTEAD}


@pytest.mark.parametrize("name", sorted(INSTEAD))
def test_a_keyword_that_is_not_taken_says_what_takes_its_place(trainer: Any, name: str) -> None:
    with pytest.raises(SetupError) as error:
        trainer(**{name: object()})
    assert str(error.value) == f"PostTrainer takes no {name}: {INSTEAD[name]}."
    trainer(**{name: None})


def test_a_keyword_that_nobody_knows_is_an_error_with_the_nearest(trainer: Any) -> None:
    with pytest.raises(TypeError, match="takes no train_datasett; did you mean train_dataset"):
        trainer(train_datasett=ROWS)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tokenizer": object()}, "tokenizer= and processing_class= are one thing"),
        ({"processing_class": None}, "A tokenizer is needed"),
        ({"algorithm": 3}, "algorithm must be a name"),
        (
            {"train_dataset": Dataset.from_list(ROWS).to_iterable_dataset()},
            "IterableDataset has no length.*Dataset.from_list",
        ),
        ({"train_dataset": "rows.jsonl"}, "'rows.jsonl' is a name: pass the rows"),
        ({"train_dataset": DatasetDict({"train": Dataset.from_list(ROWS)})}, "has the splits train: pass one"),
        ({"train_dataset": []}, "train_dataset has no rows"),
        ({"train_dataset": Dataset.from_list([{"input_ids": [1, 2], "labels": [1, 2]}])}, "is tokenized: pass its text"),
        (
            {"eval_dataset": Dataset.from_list(ROWS).to_iterable_dataset()},
            "eval_dataset held_out: IterableDataset has no length",
        ),
    ],
)
def test_what_cannot_be_taken_is_said(trainer: Any, given: dict[str, Any], says: str) -> None:
    with pytest.raises(SetupError, match=says):
        trainer(given.pop("algorithm", "sft"), **given)


def test_an_unknown_algorithm_has_the_recipes_sentence(trainer: Any) -> None:
    with pytest.raises(RecipeError, match="Unknown algorithm 'sfft'"):
        trainer("sfft")


def test_questions_as_an_evaluation_set_are_refused(trainer: Any) -> None:
    asked = Dataset.from_list([{"prompt": "1+1=", "answer": "2"}])
    with pytest.raises(SetupError, match=r"held_out has questions.*sample_evaluation"):
        trainer({"name": "grpo", "rollouts": 4}, rewards=Thirds(), sampling=SAMPLING, eval_dataset=asked)


def test_an_adapters_config_puts_one_on(trainer: Any) -> None:
    made = trainer("sft", peft_config=LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    made.train()
    moved = {name for name, p in made.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all("lora_" in name for name in moved)
    with pytest.raises(SetupError, match="has an adapter already"):
        trainer("sft", model=(made.model, made.processing_class), peft_config=LoraConfig(r=2))


def test_an_optimizer_of_ones_own_moves_the_model_and_no_other(trainer: Any) -> None:
    model, tokenizer = make_model(dtype="float32")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    made = trainer("sft", model=(model, tokenizer), optimizers=(optimizer, None))
    made.train()
    assert lines(made, "metrics.jsonl")[0]["learning_rate"] == 0.25
    with pytest.raises(SetupError, match="holds parameters that are not the model's"):
        trainer("sft", optimizers=(torch.optim.SGD(model.parameters(), lr=0.25), None))


def test_a_class_of_optimizers_with_its_options_is_taken(trainer: Any) -> None:
    made = trainer("sft", optimizer_cls_and_kwargs=(torch.optim.Adagrad, {"lr": 0.125}))
    made.train()
    assert isinstance(made.optimizer.optimizer, torch.optim.Adagrad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_of_16_bits_are_trained_in_float32_and_computed_in_bfloat16(dtype: Any, trainer: Any) -> None:
    model, tokenizer = make_model(dtype="float32")
    with hearing() as told:
        made = trainer("sft", model=(model.to(dtype), tokenizer))
        assert made.accelerator.mixed_precision == "bf16"
        made.train()
        trainer("sft")
    assert [one.rule for one in told if one.rule != "unread-columns"] == ["float32-masters"]
    assert {p.dtype for p in made.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("quiet", [False, True])
def test_training_shows_its_progress_as_transformers_does(trainer: Any, arguments: Any, quiet: bool, capsys: Any) -> None:
    trainer("sft", args=arguments(disable_tqdm=quiet)).train()
    out, err = capsys.readouterr()
    assert ("2/2" in err) == (not quiet)
    assert "'nll'" in out and "'train_runtime'" in out


# Arguments of transformers.

OTHER: dict[str, Any] = {
    "label_smoothing_factor": 0.1,
    "torch_compile_backend": "eager",
    "torch_compile_mode": "default",
    "liger_kernel_config": {"rope": True},
    "neftune_noise_alpha": 5.0,
    "torch_empty_cache_steps": 2,
    "accelerator_config": {"split_batches": True},
    "train_sampling_strategy": "sequential",
    "include_for_metrics": ["inputs"],
    "debug": "underflow_overflow",
    "hub_model_id": "a/b",
    "hub_revision": "main",
    "label_names": ["labels"],
    "length_column_name": "size",
    "resume_from_checkpoint": "somewhere",
    "per_device_eval_batch_size": 3,
    "dataloader_num_workers": 2,
    "dataloader_prefetch_factor": 2,
    "dataloader_multiprocessing_context": "spawn",
    "hub_strategy": "end",
    "eval_accumulation_steps": 2,
}
"""Values that are not the default, where the opposite of the default is none."""


@pytest.mark.parametrize("name", sorted({*REFUSED, *IDLE} - {"parallelism_config"}))
def test_an_argument_that_would_not_be_honoured_is_refused_and_an_idle_one_told(
    trainer: Any, arguments: Any, name: str
) -> None:
    args = arguments(dataloader_num_workers=1) if name == "dataloader_prefetch_factor" else arguments()
    value = OTHER[name] if name in OTHER else not getattr(args, name)
    setattr(args, name, value)
    if name in REFUSED:
        with pytest.raises(SetupError, match=f"args: {name} is not taken"):
            trainer("sft", args=args)
        return
    with hearing() as told:
        trainer("sft", args=args)
    assert any(one.sentence.startswith(f"args: {name} changes nothing") for one in told)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"optim": "adamw_torch", "optim_args": "momentum=0.9"}, "adamw_torch does not read momentum"),
        ({"optim": "sgd", "optim_args": "momentum=0.9,momentun=0.8"}, "does not read momentun"),
        ({"optim_target_modules": "all-linear"}, "read by galore and apollo alone"),
    ],
)
def test_options_that_the_optimizer_does_not_read_are_refused(trainer: Any, arguments: Any, given: Any, says: str) -> None:
    with pytest.raises(SetupError, match=says):
        trainer("sft", args=arguments(**given))


def test_options_that_the_optimizer_reads_are_taken(trainer: Any, arguments: Any) -> None:
    made = trainer("sft", args=arguments(optim_args="momentum=0.9"))
    made.train()
    assert made.optimizer.param_groups[0]["momentum"] == 0.9


def test_a_config_of_trl_is_refused_where_it_says_what_nobody_reads(trainer: Any, tmp_path: Path) -> None:
    args = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, report_to=[], bf16=False, beta=0.04, num_generations=4)
    with pytest.raises(SetupError, match=r"beta, .*num_generations, .* of GRPOConfig would be read by nobody"):
        trainer("sft", args=args)


def test_the_seed_of_the_data_orders_the_data(trainer: Any, arguments: Any) -> None:
    def order(**more: Any) -> list[str]:
        made = trainer("sft", args=arguments(**more))
        collection = made.run_state.collector.collect(made.model, 0, 0.0)
        return [row.completion.tolist() for row in collection.rows]

    assert order(data_seed=7) == order(seed=7, data_seed=7) == order(seed=7) != order()


@pytest.mark.parametrize("kind", ["eval", "save", "logging"])
def test_a_strategy_of_epochs_acts_at_each_epoch(trainer: Any, arguments: Any, kind: str) -> None:
    args = arguments(max_steps=-1, num_train_epochs=3, **{f"{kind}_strategy": "epoch"})
    made = trainer("sft", args=args, eval_dataset=Dataset.from_list(ROWS[:3]))
    made.train()  # 12 rows, 4 a step: an epoch is 3 steps
    folder = Path(str(args.output_dir))
    if kind == "eval":
        assert [line["step"] for line in lines(made, "eval.jsonl")] == [3, 6, 9]
    elif kind == "save":
        assert sorted(path.name for path in folder.glob("checkpoint-*")) == [f"checkpoint-{n}" for n in (3, 6, 9)]
    else:
        assert [log["step"] for log in made.state.log_history if "grad_norm" in log] == [3, 6, 9]


# The best model.

EVERY: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 8}


@pytest.mark.parametrize("metric", ["loss", "eval_loss", "held_out/nll", "eval_held_out_nll", "nll", "eval/held_out/nll"])
def test_early_stopping_stops_when_the_metric_gets_no_better(trainer: Any, arguments: Any, metric: str) -> None:
    args = arguments(**EVERY, metric_for_best_model=metric, learning_rate=0.0)
    made = trainer(
        "sft",
        args=args,
        eval_dataset=Dataset.from_list(ROWS[:3]),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    made.train()
    assert made.state.global_step == 3  # the first is the best, and two are no better
    better = trainer(
        "sft",
        args=arguments(**EVERY, metric_for_best_model=metric),
        eval_dataset=Dataset.from_list(ROWS[:3]),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    better.train()
    assert better.state.global_step == 8  # lower is better, whatever transformers makes of the name


def test_the_newest_checkpoint_is_the_best_one_where_only_the_best_are_saved(trainer: Any, arguments: Any) -> None:
    args = arguments(
        **EVERY,
        save_strategy="best",
        save_total_limit=1,
        metric_for_best_model="loss",
        learning_rate=3.0,
        lr_scheduler_type="constant",
    )
    made = trainer("sft", args=args, eval_dataset=Dataset.from_list(ROWS[:3]))
    made.train()
    losses = {line["step"]: line["eval/held_out/loss"] for line in lines(made, "eval.jsonl")}
    best = min(losses, key=losses.__getitem__)
    assert [path.name for path in Path(str(args.output_dir)).glob("checkpoint-*")] == [f"checkpoint-{best}"]
    assert best < max(losses)


@pytest.mark.parametrize(
    ("given", "held_out", "callbacks", "says"),
    [
        ({**EVERY, "metric_for_best_model": "rouge"}, True, [], "the evaluation has no rouge; it has held_out/"),
        ({**EVERY, "metric_for_best_model": "loss"}, False, [], "there is no evaluation that could have loss"),
        ({"metric_for_best_model": "loss"}, True, [], "there is no evaluation that could have loss"),
        (EVERY, True, [EarlyStoppingCallback()], "looks at metric_for_best_model: set it"),
        ({**EVERY, "metric_for_best_model": "loss"}, "two", [], "has several loss; they are a/loss, b/loss"),
    ],
)
def test_a_metric_that_can_match_nothing_is_refused_before_training(
    trainer: Any, arguments: Any, given: Any, held_out: Any, callbacks: Any, says: str
) -> None:
    rows: Any = Dataset.from_list(ROWS[:3])
    sets = {"a": rows, "b": rows} if held_out == "two" else rows if held_out else None
    with pytest.raises(SetupError, match=says):
        trainer("sft", args=arguments(**given), eval_dataset=sets, callbacks=callbacks)


def test_other_sets_and_predictions_are_refused(trainer: Any) -> None:
    made = trainer("sft")
    with pytest.raises(SetupError, match="the sets are those of eval_dataset="):
        made.evaluate(Dataset.from_list(ROWS))
    with pytest.raises(SetupError, match="no predictions"):
        made.predict(Dataset.from_list(ROWS))
