"""A recipe with a teacher: told in the plan, counted in the memory, the same one when a run goes on, and a stage's own."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
from safetensors.torch import load_file, save_file

from posttrain.data.encoding.teacher import AskedLater
from posttrain.execution.memory.process import gigabytes
from posttrain.execution.planning import plan
from posttrain.model.load import load
from posttrain.recipe import load_recipe
from posttrain.settings.model import ModelConfig
from recipes import SCRATCH, Command, recipe, write

TEACHERS = {"wide": {"name": "teacher"}}
TRAINING = {"max_steps": 2, "rows_per_step": 4, "lr_scheduler_type": "constant", "save_every": 1}
ROLLOUT = {"questions_per_step": 2, "n": 2, "max_tokens": 4}


def teacher(kind: Literal["characters", "bytes"] = "characters", **more: Any) -> Path:
    sizes = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 1, **more}
    for one in load(ModelConfig.model_validate({"from_scratch": sizes, "tokenizer": kind}), seed=1):
        one.save_pretrained("teacher")
    return Path("teacher")


def made(**changes: Any) -> str:
    model = {**SCRATCH, "teachers": TEACHERS}
    return recipe(**{"model": model, "algorithm": {"name": "kd"}, "training": TRAINING, **changes})


def test_a_run_learns_from_its_teacher_and_goes_on_with_no_other(posttrain: Command) -> None:
    folder = teacher()
    rows = plan(load_recipe(made()))
    numbers = sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    assert rows["teacher wide"] == f"teacher, {numbers:,} parameters, frozen"
    assert f"teacher {gigabytes(4 * numbers)}" in rows["memory of a process, with AdamW"]
    assert posttrain("run", made())[0] == 0
    shutil.rmtree("out/final")
    file = folder / "model.safetensors"
    before, tensors = file.read_bytes(), load_file(file)
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file({**tensors, name: tensors[name].flip(0)}, file, metadata={"format": "pt"})
    code, _, err = posttrain("run", made())
    assert code == 8 and "was trained with another teacher wide: its weights are others" in err
    file.write_bytes(before)
    assert posttrain("run", made())[0] == 0


def test_a_teacher_is_asked_more_than_the_student_and_the_same_when_a_run_goes_on(posttrain: Command) -> None:
    teacher()

    def told(template: str, **changes: Any) -> str:
        return made(model={**SCRATCH, "teachers": {"wide": {"name": "teacher", "template": template}}}, **changes)

    for algorithm, more in (({"name": "kd"}, {}), ({"name": "opd"}, {"rollout": ROLLOUT, "training": {"max_steps": 1}})):
        code, out, err = posttrain(
            "run", told("{prompt} is {answer}", algorithm=algorithm, output_dir=algorithm["name"], **more)
        )
        assert code == 0, out + err
    again = load_recipe("kd/recipe.yaml")
    assert "{prompt} is {answer}" == vars(again.algorithm)["teacher_template"] == again.model.teachers["wide"].template
    _, out, _ = posttrain("data", told("{prompt} is {answer}"))
    assert "as the teacher reads it" in out
    shutil.rmtree("kd/final")
    code, _, err = posttrain("run", told("{answer} {prompt}", output_dir="kd"))
    assert code == 8 and "model.teachers.wide.template: {prompt} is {answer} then, {answer} {prompt} now" in err, err
    for template, algorithm, expected, says in (
        ("{prompt} {hint}", {}, 3, "prompt + completion + hint are needed"),
        ("{0}", {}, 2, "model.teachers.wide.template: its fields must be names of columns"),
        (
            "{prompt}",
            {"teacher_template": "{answer}"},
            2,
            "model.teachers.wide.template: what the teacher is asked stands here",
        ),
    ):
        code, _, err = posttrain("run", told(template, algorithm={"name": "kd", **algorithm}), "--output-dir", "refused")
        assert (code, says in err) == (expected, True), err


def test_rows_longer_than_a_teacher_reads_are_left_out(posttrain: Command) -> None:
    """As those that are longer than the student reads."""
    teacher(max_position_embeddings=24)
    write(Path("rows.jsonl"), *[{"prompt": "1+1=" * (1 + 3 * (i == 5)), "completion": "2" * 12} for i in range(8)])
    asked = {"train": {"path": "rows.jsonl"}, "chat_template": False}
    code, out, err = posttrain("run", made(data=asked))
    assert code == 0, out + err
    assert "prompt and completion have 29 tokens, over the limit of 24 (the teacher" in Path("out/left_out.jsonl").read_text()
    for most, expected, says in (
        (19, 0, ""),
        (24, 2, "rollout.max_tokens: 24 leaves no room in what the teacher reads, 24 tokens"),
    ):
        told = made(algorithm={"name": "opd"}, data=asked, rollout={**ROLLOUT, "max_tokens": most}, output_dir=f"{most}")
        code, out, err = posttrain("run", told)
        assert (code, says in err) == (expected, True), out + err
    assert "over the limit of 5 (the teacher" in Path("19/left_out.jsonl").read_text()


def test_a_teacher_of_other_tokens_is_refused(posttrain: Command) -> None:
    teacher("bytes")
    code, _, err = posttrain("run", made())
    assert code == 4 and "model.teachers.wide: teacher has another vocabulary than the student" in err
    assert not Path("out").exists()


def test_a_model_that_would_learn_from_itself_asked_the_same_is_refused(posttrain: Command) -> None:
    for template, expected in (("Q: {prompt}", 2), ("{prompt}", 0)):
        code, _, err = posttrain(
            "run",
            recipe(
                algorithm={"name": "sdft", "teacher_template": template},
                data={"train": {"task": "chain", "rows": 8}, "chat_template": False, "prompt_template": "Q: {prompt}"},
                rollout=ROLLOUT,
                training={"max_steps": 1},
            ),
        )
        assert (code, "algorithm.teacher_template: 'Q: {prompt}' is what the student" in err) == (expected, expected == 2), (
            err
        )


def test_a_run_asks_the_teacher_that_is_shown_an_answer_as_its_questions_are_asked(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the recipe's system prompt, say; and how it is asked can be sent to a sampler's process."""
    asked, prompts = list[AskedLater](), AskedLater.prompts
    monkeypatch.setattr(AskedLater, "prompts", lambda self, tokenizer: (asked.append(self), prompts(self, tokenizer))[1])
    written = recipe(
        algorithm={"name": "sdpo", "teacher_template": "{prompt}{right}"},
        data={"train": {"task": "chain", "rows": 8}, "system_prompt": "+"},
        rollout=ROLLOUT,
        training={"max_steps": 1},
    )
    code, out, err = posttrain("run", written)
    assert code == 0 and "rollout/taught" in Path("out/metrics.jsonl").read_text(), out + err
    [one] = asked
    assert one.encoding.system_prompt == "+" and pickle.loads(pickle.dumps(one)) == one


def test_questions_without_answers_or_rewards_are_enough_and_a_stage_has_its_own_teacher(posttrain: Command) -> None:
    teacher()
    Path("rows.jsonl").write_text('{"prompt": "1+1="}\n' * 8)
    asked = {"train": {"path": "rows.jsonl"}}
    code, out, err = posttrain("run", made(algorithm={"name": "opd"}, data=asked, rollout=ROLLOUT, training={"max_steps": 2}))
    assert (code, "kl/teacher" in Path("out/metrics.jsonl").read_text()) == (0, True), out + err
    assert "reward/mean" not in Path("out/metrics.jsonl").read_text()
    code, _, err = posttrain(
        "run",
        made(algorithm={"name": "opd", "reward_coef": 1.0}, data=asked, rollout=ROLLOUT, training={"max_steps": 2}),
    )
    assert code == 2 and "rewards: opd learns from rewards" in err
    stages = [
        {"algorithm": {"name": "sft"}},
        {"algorithm": {"name": "gkd"}, "model": {"teachers": TEACHERS}, "rollout": ROLLOUT, "training": {"max_steps": 1}},
    ]
    code, out, err = posttrain("run", recipe(model=SCRATCH, stages=stages, output_dir="staged"))
    assert code == 0, out + err
    assert "divergence/teacher" in Path("staged/2-gkd/metrics.jsonl").read_text()
