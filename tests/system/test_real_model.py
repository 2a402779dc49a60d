"""A real pretrained model by the command, with its chat template: SFT by LoRA on GSM8K, and the evaluation of what it leaves.

`final/` is the trained model for transformers, for peft (start model and adapter) and for vLLM: all give the log-probs that
the run itself gave.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from ground.catalogue import MODEL
from ground.runs import GSM8K, apart, by_vllm, command, encoded, lines, loaded, logprobs, recipe, with_adapter
from gsm8k import real_data

pytestmark = pytest.mark.system
HELD_OUT = 4
RealModel = Callable[[str], Path]


@pytest.fixture(scope="module")
def start(real_model: RealModel) -> Path:
    return real_model(MODEL)


@pytest.fixture(scope="module")
def run(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    path = real_data() / "gsm8k_train.jsonl"
    held_out = {"path": str(real_data() / "gsm8k_test.jsonl"), "columns": GSM8K, "limit": HELD_OUT}
    data = {"train": {"path": str(path), "columns": GSM8K}, "eval": {"held_out": held_out}, "max_tokens": 512}
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
    """Greedy, by plain transformers, on rows that it was trained on as well: the answer stops by the template's own token."""
    [(prompt, _)] = encoded(start, [{"question": "What is 2 + 2?", "answer": "4"}], "answer")
    ids = torch.tensor([prompt])
    answer = loaded(run / "final").generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=120, do_sample=False)[0]
    assert answer[-1] == 2 and len(answer) < ids.shape[1] + 120
    assert AutoTokenizer.from_pretrained(start).decode(answer[ids.shape[1] :], skip_special_tokens=True).strip()


def test_the_run_is_evaluated_by_the_command(run: Path) -> None:
    data = str(real_data() / "gsm8k_test.jsonl")
    asked = [
        "--data",
        data,
        "--samples",
        "2",
        "--k",
        "2",
        "--limit",
        "2",
        "--max-tokens",
        "12",
        "--columns",
        "prompt=question",
    ]
    code, out, err = command(run.parent, "eval", "out", *asked)
    assert code == 0, err
    assert "pass@1" in out and "pass@2" in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--set", "training.max_steps=2", "--output-dir", "out"], 8, "out"),
        (["--set", "data.max_tokens=16", "--output-dir", "short"], 3, "max_tokens"),
        (["--set", "model.name={model}/model.safetensors", "--output-dir", "file"], 4, "model.safetensors"),
        (["--set", "model.adapter.target_modules=[query]", "--output-dir", "modules"], 4, "query"),
        (["--set", "data.train.columns={{prompt: question, completion: solution}}", "--output-dir", "column"], 3, "solution"),
    ],
    ids=["another recipe's folder", "no row fits", "a file for a folder", "no such module", "no such column"],
)
def test_what_a_stranger_gets_wrong_gets_a_sentence(
    start: Path, run: Path, arguments: list[str], code: int, says: str
) -> None:
    given = [argument.format(model=start) for argument in arguments]
    found, _, err = command(run.parent, "run", "recipe.yaml", *given)
    assert (found, "Traceback" in err) == (code, False), err
    assert says in err, err
