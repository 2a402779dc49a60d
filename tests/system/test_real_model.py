"""A real pretrained model by the command, with its chat template: SFT by LoRA on GSM8K, and the evaluation of what it leaves.

`final/` is the trained model for transformers, for peft (start model and adapter) and for vLLM: all give the log-probs that
the run itself gave.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ground.catalogue import MODEL
from ground.runs import GSM8K, apart, by_vllm, command, encoded, greedy, lines, loaded, logprobs, recipe, with_adapter
from gsm8k import real_data
from system.processes import environment

pytestmark = pytest.mark.system
HELD_OUT, CUT = 4, 12
RealModel = Callable[[str], Path]


@pytest.fixture(scope="module")
def start(real_model: RealModel) -> Path:
    return real_model(MODEL)


@pytest.fixture(scope="module")
def run(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    path = real_data() / "gsm8k_train.jsonl"
    held_out = {"path": str(real_data() / "gsm8k_test.jsonl"), "columns": GSM8K, "limit": HELD_OUT}
    data = {"train": {"path": str(path), "columns": GSM8K, "limit": 64}, "eval": {"held_out": held_out}, "max_tokens": 512}
    training = {"max_steps": 4, "rows_per_step": 4, "learning_rate": 1e-3, "warmup_steps": 1, "save_every": 0}
    recipe(folder, start, algorithm={"name": "sft"}, data=data, training=training)
    code, _, err = command(folder, "run", "recipe.yaml")
    assert code == 0, err
    return folder / "out"


def test_final_is_the_trained_model_for_transformers_peft_and_vllm(start: Path, run: Path) -> None:
    rows = encoded(start, lines(real_data() / "gsm8k_test.jsonl")[:HELD_OUT], "answer")
    tokens = sum(len(answer) for _, answer in rows)
    model = loaded(run / "final")
    before, final = logprobs(loaded(start), rows), logprobs(model, rows)
    first, last = lines(run / "eval.jsonl")
    for said, found in ((first, before), (last, final)):
        assert said["eval/held_out/nll"] == pytest.approx(-sum(map(float, (one.sum() for one in found))) / tokens, abs=1e-5)
    assert last["eval/held_out/nll"] < first["eval/held_out/nll"] - 0.1
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert apart(logprobs(with_adapter(start, run / "final"), rows), final) < 1e-4
    assert apart(by_vllm(run / "final", rows), final) < 1e-4


def test_the_tokenizer_of_final_asks_as_the_start_models_does(start: Path, run: Path) -> None:
    talk = [
        {"role": "user", "content": "What is 2 + 3?"},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "And\n 4 + 4?"},
    ]
    given, kept = (AutoTokenizer.from_pretrained(folder) for folder in (start, run / "final"))
    asked = [one.apply_chat_template(talk, add_generation_prompt=True, return_dict=False) for one in (given, kept)]
    assert asked[0] == asked[1]
    assert (kept.eos_token_id, kept.pad_token_id, kept.bos_token_id) == (2, 2, 1)


def test_what_it_answers_ends_where_its_turn_ends(start: Path, run: Path) -> None:
    """Greedy, by plain transformers: the answer stops by the template's own token."""
    [(prompt, _)] = encoded(start, [{"question": "What is 2 + 2?", "answer": "4"}], "answer")
    answer = greedy(loaded(run / "final"), prompt, 120)
    assert answer[-1] == 2 and len(answer) < 120
    assert AutoTokenizer.from_pretrained(start).decode(answer, skip_special_tokens=True).strip()


def test_it_answers_otherwise_than_before_by_the_command_and_in_a_conversation(start: Path, run: Path) -> None:
    """Greedy, both ways alike; its turns end."""
    question = "What is 2 + 2?"
    answers = []
    for place in (start, run):
        options = ["--prompt", question, "--max-tokens", "120", "--temperature", "0"]
        code, out, err = command(run.parent, "generate", str(place), *options)
        assert code == 0, err
        answers.append(json.loads(out))
    before, after = answers
    assert after["completion"] != before["completion"] and after["finish"] == "stop", answers
    talked = subprocess.run(
        [sys.executable, "-m", "posttrain", "chat", str(run), "--max-tokens", "120", "--temperature", "0"],
        input=f"{question}\n",
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert talked.returncode == 0, talked.stderr
    assert after["completion"].strip() in talked.stdout and "cut off" not in talked.stdout


def test_the_run_is_evaluated_by_the_command_which_asks_through_the_chat_template(start: Path, run: Path) -> None:
    """Greedy: the answers are those of plain transformers, asked through the template; all are cut off, and that is said."""
    data = real_data() / "gsm8k_test.jsonl"
    limits = ["--limit", "2", "--max-tokens", str(CUT), "--temperature", "0", "--samples", "1", "--k", "1"]
    code, out, err = command(run.parent, "eval", "out", "--data", str(data), "--columns", "prompt=question", *limits)
    assert code == 0, err
    assert "95 % interval" in out and re.search(r"pass@1 +│ 0 +│ \[0, 0\.6576\]", out), out
    assert "2 answers were cut off at --max-tokens" in out and f"cut off at max_tokens {CUT}" in err
    rows = encoded(start, lines(data)[:2], "answer")
    model, tokenizer = loaded(run / "final"), AutoTokenizer.from_pretrained(start)
    said = [tokenizer.decode(greedy(model, prompt, CUT)) for prompt, _ in rows]
    assert [one["completion"] for one in lines(run / "eval-answers.jsonl")] == said


@pytest.mark.parametrize(
    ("folder", "change", "code", "says"),
    [
        ("out", "training.max_steps=2", 8, "training.max_steps: 4 then, 2 now"),
        ("short", "data.max_tokens=16", 3, "the limit of 15 (data.max_tokens"),
        ("file", "model.name={model}/model.safetensors", 4, "model.safetensors"),
        ("modules", "model.adapter.target_modules=[query]", 4, "query"),
        ("column", "data.train.columns={{prompt: question, completion: solution}}", 3, "looks for completion in solution"),
    ],
    ids=["another recipe's folder", "no row fits", "a file for a folder", "no such module", "no such column"],
)
def test_what_a_stranger_gets_wrong_gets_a_sentence(
    start: Path, run: Path, folder: str, change: str, code: int, says: str
) -> None:
    found, _, err = command(run.parent, "run", "recipe.yaml", "--set", change.format(model=start), "--output-dir", folder)
    assert (found, "Traceback" in err) == (code, False), err
    assert says in err, err
