"""Gradient checkpointing is as the recipe says, and where it says nothing, as the memory asks."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, Qwen2ForCausalLM

from posttrain import Needs, PostTrainer
from posttrain.execution.memory import footprint
from posttrain.execution.memory.activations import Lora, Shape
from posttrain.execution.memory.process import room
from posttrain.execution.planning import plan
from posttrain.execution.prepare.arguments import training_arguments
from posttrain.execution.prepare.preparation import Prepared, prepare
from posttrain.recipe.recipe import load_recipe
from posttrain.settings.doors.permissions import Permissions
from recipes import SCRATCH, Command, recipe, write

TRAINING = {"max_steps": 2, "rows_per_step": 4, "lr_scheduler_type": "constant"}
ROW, LENGTH = {"prompt": "1+1=", "completion": "2" * 10}, 4 + 10 + 1  # with its end


def of(row: dict[str, Any], *, data: dict[str, Any] | None = None, **changes: Any) -> Prepared:
    train = {"path": write(Path("rows.jsonl"), *[row] * 8)}
    values = {"data": {"train": train, "chat_template": False, **(data or {})}, "training": TRAINING, **changes}
    return prepare(load_recipe(recipe(**values)), Permissions())


def planned(*overrides: str) -> dict[str, Any]:
    """What a dry run prints."""
    return plan(load_recipe(recipe(), overrides))


@pytest.fixture
def in_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine in which nothing fits."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1e5))


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Has an entry for each time that a model's checkpointing is switched on."""
    found: list[bool] = []
    honest = PreTrainedModel.gradient_checkpointing_enable

    def enable(self: Any, *arguments: Any, **options: Any) -> None:
        found.append(True)
        honest(self, *arguments, **options)

    monkeypatch.setattr(PreTrainedModel, "gradient_checkpointing_enable", enable)
    return found


def test_where_the_memory_is_enough_it_is_off(posttrain: Command, enabled: list[bool]) -> None:
    code, out, err = posttrain("run", recipe(), "--dry-run")
    assert (code, err) == (0, "") and "activations" in out and "checkpointing" in out
    rows = planned()
    assert re.fullmatch(r"\d+ tokens: about .* GB, with gradient checkpointing .* GB", rows["activations of a micro-batch"])
    assert rows["memory of the device"].endswith("GB: free in this machine")
    assert re.fullmatch("off: about .* GB fit into 0.9 of the memory without it", rows["gradient checkpointing"])
    code, _, err = posttrain("run", recipe())
    assert (code, err) == (0, "") and not enabled


@pytest.mark.usefixtures("small")
def test_where_it_is_not_it_is_on_and_said_once(posttrain: Command, enabled: list[bool]) -> None:
    told = planned()["gradient checkpointing"]
    assert re.match("on: about .* GB do not fit into 0.9 of the memory, and without it would be .* GB; lower", told)
    code, _, err = posttrain("run", recipe())
    assert code == 0 and enabled == [True]
    assert re.findall("warning: (.*checkpointing.*?):", err) == ["Gradient checkpointing is on"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("wanted", [False, True])
def test_what_the_recipe_says_is_obeyed(wanted: bool, posttrain: Command, enabled: list[bool]) -> None:
    set_to = f"training.gradient_checkpointing={str(wanted).lower()}"
    assert "the recipe says so, and about" in planned(set_to)["gradient checkpointing"]
    code, _, err = posttrain("run", recipe(), "--set", set_to)
    assert code == 0 and enabled == [True] * wanted
    assert err.count("warning: Gradient checkpointing is") == 1  # it does not fit, the estimate says


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("of", "name", "value", "says"),
    [
        (Shape, "of", lambda config: None, "off: there is no estimate for this model"),
        (Qwen2ForCausalLM, "supports_gradient_checkpointing", False, "off: this model has none"),
    ],
)
def test_it_stays_off_where_nothing_is_known_or_nothing_can_be_done(
    of: type, name: str, value: Any, says: str, posttrain: Command, monkeypatch: pytest.MonkeyPatch, enabled: list[bool]
) -> None:
    monkeypatch.setattr(of, name, value)
    assert planned()["gradient checkpointing"] == says
    assert posttrain("run", recipe())[0] == 0 and not enabled


def test_a_run_goes_on_with_it_to_the_same_bits(posttrain: Command) -> None:
    def run(folder: str, steps: int, checkpointing: bool) -> bytes:
        training = {**TRAINING, "max_steps": steps, "gradient_checkpointing": checkpointing}
        assert posttrain("run", recipe(training=training), "--output-dir", folder)[0] == 0
        return (Path(folder) / "final" / "model.safetensors").read_bytes()

    whole = run("whole", 4, False)
    assert run("out", 2, False) != whole
    assert run("out", 4, True) == whole


@pytest.mark.usefixtures("in_empty_folder")
@pytest.mark.parametrize(
    ("training", "processes", "tokens"),
    [
        ({}, 1, 4 * LENGTH),
        ({"micro_batch_tokens": 50}, 1, 50),
        ({"micro_batch_tokens": 7}, 1, LENGTH),  # one row is read whole
        ({"micro_batch_rows": 2}, 1, 2 * LENGTH),
        ({}, 2, 2 * LENGTH),
    ],
)
def test_tokens_of_the_largest_micro_batch(training: dict[str, Any], processes: int, tokens: int) -> None:
    prepared = of(ROW, training={**TRAINING, **training}, distributed={"processes": processes})
    assert prepared.footprint().tokens == tokens


@pytest.mark.usefixtures("in_empty_folder")
def test_a_pair_is_two_rows() -> None:
    pair = {"prompt": "1+1=", "chosen": "2", "rejected": ROW["completion"]}
    assert of(pair, algorithm={"name": "dpo"}).footprint().tokens == 4 * 2 * LENGTH


@pytest.mark.usefixtures("in_empty_folder")
@pytest.mark.parametrize(
    ("algorithm", "more"),
    [
        ({"name": "grpo"}, {"rollout": {"questions_per_step": 2, "n": 2, "max_tokens": 40}}),
        ({"name": "sft"}, {"data": {"collect": {"rejection_sampling": {"max_tokens": 40}}}}),
    ],
)
def test_an_answer_is_as_long_as_it_may_be(algorithm: dict[str, Any], more: dict[str, Any]) -> None:
    training = TRAINING if algorithm["name"] == "sft" else {"max_steps": 2}
    rewards = [{"name": "exact_match", "verdict": True}]
    found = of({**ROW, "answer": "2"}, algorithm=algorithm, rewards=rewards, training=training, **more)
    assert found.footprint().tokens == 4 * (4 + 40)


@pytest.mark.usefixtures("in_empty_folder")
def test_a_row_is_as_long_as_its_teacher_reads_it() -> None:
    template, shown = "{prompt}{demonstration}", 4 + 10
    rollout = {"questions_per_step": 2, "n": 2, "max_tokens": 40}
    own = of(ROW, algorithm={"name": "sdft", "teacher_template": template}, rollout=rollout, training={"max_steps": 2})
    assert own.footprint().tokens == 4 * (shown + 40)
    rewards, asked = [{"name": "exact_match", "verdict": True}], {**ROW, "answer": "2"}
    algorithm = {"name": "sdpo", "teacher_template": "{prompt} as {right}"}
    shown_right = of(asked, algorithm=algorithm, rewards=rewards, rollout=rollout, training={"max_steps": 2})
    assert shown_right.footprint().tokens == 4 * (4 + 4 + 40 + 40)
    for part in (own.model, own.tokenizer):
        part.save_pretrained("teacher")
    teachers = {"t": {"name": "teacher", "template": template}}
    assert of(ROW, algorithm={"name": "kd"}, model={**SCRATCH, "teachers": teachers}).footprint().tokens == 4 * (shown + 11)


@pytest.mark.usefixtures("in_empty_folder")
@pytest.mark.parametrize(
    ("model", "training", "distributed", "stored", "computed", "adapter"),
    [
        ({}, {}, {}, 4, 4, None),
        ({"dtype": "bfloat16"}, {}, {}, 4, 4, None),
        ({"dtype": "bfloat16", "compute": "bfloat16"}, {}, {}, 4, 2, None),
        ({}, {"bf16": True}, {}, 4, 2, None),
        pytest.param(
            {}, {"bf16": True}, {"mode": "zero2", "processes": 2}, 2, 2, None, marks=pytest.mark.system
        ),  # DeepSpeed
        ({"compute": "bfloat16"}, {}, {"mode": "zero3"}, 4, 2, None),  # in one process
        ({"dtype": "bfloat16", "adapter": {"r": 3}}, {}, {}, 2, 2, (4, 4)),
        ({"dtype": "bfloat16", "compute": "bfloat16", "adapter": {"r": 3}}, {}, {}, 2, 2, (4, 2)),
        ({"adapter": {"r": 3}}, {"bf16": True}, {}, 4, 2, (4, 2)),
    ],
)
def test_precision(
    model: dict[str, Any],
    training: dict[str, Any],
    distributed: dict[str, Any],
    stored: int,
    computed: int,
    adapter: tuple[int, int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(footprint, "activations", lambda shape, **options: given.update(options))
    of(ROW, model={**SCRATCH, **model}, training={**TRAINING, **training}, distributed=distributed).footprint()
    assert (given["stored"], given["computed"]) == (stored, computed)
    modules = frozenset(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))
    assert given["lora"] == (None if adapter is None else Lora(modules, 3, *adapter))


@pytest.mark.usefixtures("in_empty_folder")
def test_adamw_is_one_kernel_unless_the_recipe_says_otherwise() -> None:
    made = load_recipe(recipe())
    arguments = training_arguments(made, 2, checkpointing=False)
    prepared = prepare(made, Permissions())
    trainer = PostTrainer(
        prepared.model, prepared.algorithm, tokenizer=prepared.tokenizer, train_dataset=prepared.sets.train, args=arguments
    )
    optimizer = trainer.create_optimizer()
    assert type(optimizer) is torch.optim.AdamW and all(group["fused"] for group in optimizer.param_groups)
    other = load_recipe(recipe(training={**TRAINING, "extra": {"optim": "sgd"}}))
    assert training_arguments(other, 2, checkpointing=False).optim == "sgd"


@pytest.mark.usefixtures("in_empty_folder")
@pytest.mark.parametrize(
    ("vllm", "share"),
    [({}, 0.4), ({"gpu_memory_utilization": 0.7}, 0.7), ({"sleep": True}, 0.0), ({"mode": "server"}, 0.0)],
)
def test_an_engine_in_the_process_has_its_share_unless_it_sleeps(
    vllm: dict[str, Any], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posttrain.execution.prepare.preparation.check_usable", lambda *_, **__: None)
    monkeypatch.setattr("posttrain.recipe.packages._is_there", lambda package: True)  # the estimate needs no vLLM
    shares = list[float]()
    monkeypatch.setattr(footprint, "room", lambda *, engine, **more: shares.append(engine) or room(engine=engine, **more))
    sampled = {"questions_per_step": 2, "n": 2, "max_tokens": 4, "engine": "vllm", "vllm": vllm}
    rewards = [{"name": "length"}]
    of(ROW, algorithm={"name": "grpo"}, rollout=sampled, rewards=rewards).footprint()
    assert shares == [share]


def test_of_a_units_rows_those_share_a_prompt_that_have_one() -> None:
    def sharing(units: int, **needs: Any) -> int:
        return footprint._sharing(Needs(scope="sequence", **needs), units)

    assert sharing(5, crossed=3) == 3 and sharing(5, preference=True) == 2 and sharing(5, preference=True, unit=3) == 3
    assert sharing(5, rollouts=8) == 5 and sharing(9, rollouts=8) == 8 and sharing(5) == 1


@pytest.mark.usefixtures("in_empty_folder")
def test_a_micro_batch_has_whole_units_of_all_their_prompts() -> None:
    told = {"prompts": ["1+1=", "12+1="], "completions": ["2" * 10, "3"]}
    prepared = of(told, algorithm={"name": "sami"}, training={**TRAINING, "micro_batch_rows": 2})
    assert prepared.longest == {"longest": 5 + 10 + 1, "prompt": 5}
    assert prepared.footprint().tokens == 2 * 4 * 16
