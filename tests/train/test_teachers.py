"""A teacher beside the model that is trained: what a step learns from it, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from cases import divergences
from posttrain import PostTrainer, build_algorithm, policy_gradient_loss
from posttrain.errors import DataError, EngineError, SetupError
from posttrain.model.frozen.teacher import load_teacher, teacher_of
from posttrain.model.load import make_tokenizer
from posttrain.settings.model import MovingReference, TeacherConfig
from posttrain.train.collect.arrays import from_arrays, to_arrays
from tiny import make_examples, make_model, make_problems, make_teacher, parameters
from train import naive

MakeTrainer = Callable[..., PostTrainer]
TAUGHT = {
    "kd": {"temperature": 2.0},
    "gkd": {"beta": 0.3, "rollouts": 2, "demonstrations": 4},
    "opd": {"rollouts": 2, "reward_coef": 0.5},
    "sdft": {"rollouts": 2},
    "sdpo": {"rollouts": 3, "distillation_weight": 0.4},
}


TOLD = {"teacher_template": "{prompt} (as in {demonstration})"}
SHOWN = {"teacher_template": "{prompt} (as {right})"}


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
@pytest.mark.parametrize("name", TAUGHT)
def test_a_step_has_the_gradient_of_both_models_own_full_logits_on_what_each_is_asked(
    name: str, layout: str, make_trainer: MakeTrainer
) -> None:
    """Of sdft and sdpo the teacher is the start model; of sdpo only some rows have one."""
    options = TAUGHT[name] | (SHOWN if name == "sdpo" else TOLD if layout != "shared" or name == "opd" else {})
    algorithm, more = build_algorithm(name, **options), {"layout": layout}
    teacher = make_teacher() if algorithm.needs.given_teacher else make_model()[0].requires_grad_(False)
    more |= {"teachers": {"wide": teacher}} if algorithm.needs.given_teacher else {}
    trainer = make_trainer(name, options=options, max_steps=1, micro_rows=2, learning_rate=1.0, trainer_options=more)
    model: Any = trainer.model
    collection, at = trainer.run_state.collector.collect(model, 0, 0.0), 1.3 if algorithm.needs.rollouts else 1.0
    read = dataclasses.replace(collection, rows=tuple(row.as_taught for row in collection.rows))
    longer = [len(taught) > len(row) for taught, row in zip(read.rows, collection.rows, strict=True)]
    if name == "sdpo":
        assert any(longer) and not all(longer) and longer == collection.flat.fields["taught"].tolist()
    else:
        assert all(longer) if algorithm.needs.teacher_template else not any(longer)
    own, taught = naive.log_softmax(model, collection, at), naive.log_softmax(teacher, read, at).detach()
    batch = algorithm.prepare(collection.batch.replace(teacher_logp=naive.of_tokens(taught, collection)))
    whole: Any = (
        {}
        if algorithm.needs.teacher == "logp"
        else {algorithm.divergence.name: divergences(own, taught, algorithm.divergence)}
    )
    whole = {kind: values[kind] for kind, values in whole.items()}
    policy_gradient_loss(algorithm, naive.of_tokens(own, collection), batch, **whole).loss.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    before, before_teacher = parameters(model), parameters(teacher)
    model.zero_grad()
    trainer.train()
    assert expected.abs().max() > 1e-3
    assert (before - parameters(model) - expected).abs().max() / expected.abs().max() < 1e-10
    assert torch.equal(before_teacher, parameters(teacher)) and not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("compare", ["tokens", "distributions"])
def test_its_own_teacher_that_is_told_nothing_more_teaches_nothing(compare: str, make_trainer: MakeTrainer) -> None:
    """Also once the student has moved, where it is a copy at each step; told more, it does."""

    def moved(template: str, **more: Any) -> torch.Tensor:
        options = {"rollouts": 2, "compare": compare, "teacher_template": template}
        trainer = make_trainer("sdft", options=options, learning_rate=1.0, max_steps=2, trainer_options=more)
        before = parameters(trainer.model)
        trainer.train()
        return (parameters(trainer.model) - before).abs().max()

    assert moved("{prompt}", reference=MovingReference(refresh=1)) < 1e-12
    assert moved("{prompt} {demonstration}") > 1e-3


def test_a_teacher_may_be_the_address_of_a_server(make_trainer: MakeTrainer) -> None:
    """Of which nothing is learnt where nobody answers; tests/system has a server."""
    with pytest.raises(
        EngineError, match=r"model.teachers.far: The vLLM server at http://127.0.0.1:9 cannot be used: Connect"
    ):
        make_trainer("opd", trainer_options={"teachers": {"far": "http://127.0.0.1:9"}})


def test_its_own_teacher_is_no_other_model(make_trainer: MakeTrainer) -> None:
    with pytest.raises(SetupError, match="sdft takes no teacher: leave teachers= out"):
        make_trainer("sdft", trainer_options={"teachers": {"wide": make_teacher()}})


def test_what_a_teacher_reads_counts_in_a_micro_batch_and_is_kept_with_a_collection(make_trainer: MakeTrainer) -> None:
    options = {"rollouts": 2, **TOLD}
    made = [make_trainer("opd", options=given, micro_tokens=80) for given in (options, {"rollouts": 2})]
    for trainer, told in zip(made, (True, False), strict=True):
        [step], _ = trainer.get_batch_samples(iter([0]), 1, torch.device("cpu"))
        assert (len(step.micro) > 1) == told
        back = from_arrays(to_arrays(step.collection))
        for row, kept in zip(step.collection.rows, back.rows, strict=True):
            assert (row.teacher_prompt is not None) == told
            assert kept.as_taught.prompt.tolist() == row.as_taught.prompt.tolist()


def test_prepared_rows_that_say_nothing_to_the_teacher_are_refused(make_trainer: MakeTrainer) -> None:
    model, tokenizer = make_model()
    for name, rows in (("kd", make_examples(model, tokenizer)), ("opd", make_problems(tokenizer))):
        with pytest.raises(DataError, match="must have a teacher_prompt: Reader"):
            make_trainer(name, options=TOLD, trainer_options={"train_dataset": rows})


def test_a_teacher_is_taken_by_its_folder_and_one_for_one_that_asks(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("bytes")
    make_teacher(dtype="float32").save_pretrained(tmp_path / "wide")
    tokenizer.save_pretrained(tmp_path / "wide")
    learnt = make_trainer("kd", max_steps=2, trainer_options={"teachers": {"wide": tmp_path / "wide"}})
    learnt.train()
    for name, teachers, says in (
        ("kd", {}, "kd takes one teacher: pass teachers="),
        ("kd", {"a": make_teacher(), "b": make_teacher()}, "kd takes one teacher"),
        ("sft", {"a": make_teacher()}, "sft takes no teacher: leave teachers= out"),
    ):
        with pytest.raises(SetupError, match=says):
            make_trainer(name, trainer_options={"teachers": teachers})


def test_a_teacher_is_another_model_over_the_same_tokens(tmp_path: Path) -> None:
    policy, tokenizer = make_model()
    options: dict[str, Any] = {"vocabulary": len(tokenizer), "head": "one_pass", "full": True}
    with pytest.raises(SetupError, match="The teacher t has parameters of the model that is trained"):
        teacher_of("t", policy, policy, **options)
    teacher_of("t", copy.deepcopy(policy), policy, **options)
    small = make_teacher()
    small.resize_token_embeddings(len(tokenizer))
    with pytest.raises(SetupError, match=rf"has {len(tokenizer)} ids, and {policy.config.vocab_size} are needed"):
        teacher_of("t", small, policy, **options)
    teacher_of("t", small, policy, **{**options, "full": False})
    make_teacher(dtype="float32").save_pretrained(tmp_path)
    make_tokenizer("characters").save_pretrained(tmp_path)
    with pytest.raises(SetupError, match=r"model.teachers.t: .* has another vocabulary than the student: .* first"):
        load_teacher("t", TeacherConfig(name=str(tmp_path)), tokenizer)
    with pytest.raises(SetupError, match=r"model.teachers.t: there is no such folder"):
        load_teacher("t", TeacherConfig(name=str(tmp_path / "none")), tokenizer)


def test_a_teacher_may_wear_an_adapter(tmp_path: Path) -> None:
    """By a base and the adapter's folder, or by the folder alone, whose config names its base."""
    base, tokenizer = make_teacher(dtype="float32"), make_tokenizer("bytes")
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    worn = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), LoraConfig(r=2, init_lora_weights=False))
    worn.save_pretrained(str(tmp_path / "adapter"))
    ids = torch.arange(20)[None]
    plain = load_teacher("t", TeacherConfig(name=str(tmp_path / "base")), tokenizer)(ids).logits
    for config in (
        TeacherConfig(name=str(tmp_path / "base"), adapter=str(tmp_path / "adapter")),
        TeacherConfig(name=str(tmp_path / "adapter")),
    ):
        adapted = load_teacher("t", config, tokenizer)(ids).logits
        torch.testing.assert_close(adapted, worn(ids).logits)
        assert (adapted - plain).abs().max() > 0.1
    with pytest.raises(SetupError, match=r"model.teachers.t: There is no adapter in"):
        load_teacher("t", TeacherConfig(name=str(tmp_path / "base"), adapter=str(tmp_path / "base")), tokenizer)
