"""A run's models in use: which one is meant, what it answers, its adapter folded in, and what would be sent."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.errors import CheckpointError, RecipeError
from posttrain.execution.use.chosen import choose
from posttrain.execution.use.pushing import packed
from recipes import Command, recipe, write

LORA = {"adapter": {"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]}}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of an adapter over a folder's model, which lies elsewhere."""
    from posttrain.cli.app import app

    folder = tmp_path_factory.mktemp("ran")
    base = folder / "base"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for changes in (
            {"output_dir": "first", "training": {"max_steps": 1, "rows_per_step": 4}},
            {
                "model": {"name": str(base), **LORA},
                "output_dir": "run",
                "data": {"train": {"task": "chain", "rows": 8}, "system_prompt": "Be right."},
                "training": {"max_steps": 3, "rows_per_step": 4, "learning_rate": 0.05, "save_every": 2},
            },
        ):
            app(["run", recipe(**changes)], standalone_mode=False)
            if not base.exists():
                shutil.copytree(folder / "first" / "final", base)
    return folder / "run"


def test_which_model_is_meant(ran: Path, tmp_path: Path) -> None:
    assert choose(str(ran)).place == str(ran / "final") and choose(str(ran)).encoding.system_prompt == "Be right."
    assert choose(str(ran), "adapter").place == str(ran / "final" / "adapter") and choose(str(ran), "adapter").is_adapter
    assert choose(str(ran), "checkpoint-2").place == choose(str(ran), "2").place == str(ran / "checkpoint-2")
    assert choose("org/model").place == "org/model" and choose("org/model").run is None
    with pytest.raises(CheckpointError, match=r"has no 7\. Its checkpoints: checkpoint-2, checkpoint-3"):
        choose(str(ran), "7")
    with pytest.raises(CheckpointError, match=r"no best\. It is kept where eval\.metric is set"):
        choose(str(ran), "best")
    with pytest.raises(RecipeError, match="one of final, best, adapter, checkpoint-N"):
        choose(str(ran), "last")
    with pytest.raises(RecipeError, match="is not the folder of a run"):
        choose(str(ran / "final"), "best")
    broken_off = tmp_path / "off"
    shutil.copytree(ran, broken_off, ignore=shutil.ignore_patterns("final"))
    found = choose(str(broken_off))
    assert found.place == str(broken_off / "checkpoint-3") and found.note == "The run is not finished: this is checkpoint-3."
    for checkpoint in broken_off.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    with pytest.raises(CheckpointError, match="has no model yet"):
        choose(str(broken_off))


def test_a_merged_adapter_is_the_model(ran: Path, tmp_path: Path, posttrain: Command) -> None:
    """Of a checkpoint, whose adapter lies there alone; and what is in the way is left as it is."""
    code, out, err = posttrain("merge", str(ran), "--at", "checkpoint-3", "--output", "whole")
    assert code == 0 and "with the log-probs" in out, err
    ids = torch.tensor([[5, 6, 7, 8]])
    merged, final, base = (
        AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)(ids).logits
        for place in ("whole", ran / "final", ran.parent / "base")
    )
    assert torch.allclose(merged, final, atol=1e-5) and not torch.allclose(merged, base, atol=1e-3)
    assert AutoTokenizer.from_pretrained("whole").chat_template == AutoTokenizer.from_pretrained(ran / "final").chat_template
    code, _, err = posttrain("merge", str(ran), "--output", "whole")
    assert code == 2 and "is there already" in err
    code, _, err = posttrain("merge", str(ran), "--at", "final", "--output", "other")
    assert code == 2 and "there is nothing to fold in" in err and not Path("other").exists()
    assert posttrain("merge", str(ran), "--output", "other", "--dtype", "int4")[0] == 2
    code, _, err = posttrain("merge", "runs/nowhere", "--output", "other")
    assert code == 2 and "is no folder here" in err


def test_models_are_merged_by_name(ran: Path, posttrain: Command) -> None:
    """A run and its base: the curve's ends are the models, and what the command is told wrongly leaves nothing."""
    base = str(ran.parent / "base")
    over = (str(ran), "--base", base, "--method")
    code, out, err = posttrain("merge", *over, "wise_ft", "--alpha", "0", "--alpha", "1", "-o", "curve")
    assert code == 0 and "each tensor as the formula gives it" in out, err
    for place, folder in (("curve/alpha-0", Path(base)), ("curve/alpha-1", ran / "final")):
        assert (Path(place) / "model.safetensors").stat().st_size == (folder / "model.safetensors").stat().st_size
        one, other = (load_file(path / "model.safetensors") for path in (Path(place), folder))
        assert all(torch.equal(one[name], other[name]) for name in one | other)
    assert json.loads(Path("curve/alpha-1/merge.json").read_text())["alpha"] == 1
    adapter = str(ran / "final" / "adapter")
    for told, wrong, sentence in (
        ((*over, "wise_ft", "--alpha", "0", "-o", "curve"), 2, "curve is there already"),
        ((*over, "tise", "-o", "x"), 2, "merge --method: tise is unknown; did you mean ties?"),
        ((str(ran), base, "--method", "ties", "-o", "x"), 2, "merge --base: is required."),
        ((str(ran), *over, "ties", "--density", "0", "-o", "x"), 2, "merge --density: input should be greater than 0"),
        ((*over, "ties", "-o", "x"), 2, "models: ties takes 2 or more beside the base, and here is 1."),
        ((*over, "wise_ft", "--density", "0.5", "-o", "x"), 2, "merge --density: unknown key"),
        ((*over, "task_arithmetic", "--weights", "one", "-o", "x"), 2, "--weights one: numbers are expected"),
        ((base, str(ran), "-o", "x"), 2, "several models need --method, a name of `posttrain list merges`"),
        ((base, adapter, "--method", "linear", "-o", "x"), 4, "is an adapter, and whole models are merged"),
        ((base, "no/such/model", "--method", "linear", "-o", "x"), 4, "there is no such folder"),
    ):
        code, _, err = posttrain("merge", *told)
        assert code == wrong and sentence in err, err
    assert not Path("x").exists() and not Path("x.partial").exists()


def test_answers_are_lines_of_json(ran: Path, tmp_path: Path, posttrain: Command) -> None:
    rows = write(tmp_path / "rows.jsonl", {"prompt": "1+1="}, {"prompt": ""}, {"prompt": "2+2=", "answer": "4"})
    options = ("--max-tokens", "6", "-n", "2", "--seed", "3")
    code, out, err = posttrain("generate", str(ran), "--data", rows, *options)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [line["prompt"] for line in lines] == ["1+1="] * 2 + ["2+2="] * 2, err
    assert "left out (bad)" in err and lines[0]["completion"] != lines[1]["completion"]
    assert posttrain("generate", str(ran), "--data", rows, *options, "--output", "answers.jsonl")[0] == 0
    assert [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()] == lines
    [one] = posttrain("generate", str(ran), "--prompt", "3*3=", "--temperature", "0", "--max-tokens", "4")[1].splitlines()
    [two] = posttrain("generate", str(ran), "--prompt", "3*3=", "--temperature", "0", "--max-tokens", "4")[1].splitlines()
    assert one == two
    assert posttrain("generate", str(ran))[0] == 2
    assert posttrain("generate", str(ran), "--prompt", "a", "--engine", "tgi")[0] == 2
    assert posttrain("generate", str(ran), "--prompt", "a", "--dtype", "int4")[0] == 2
    assert posttrain("generate", str(tmp_path / "nowhere"), "--prompt", "a")[0] == 4
    assert posttrain("generate", str(ran), "--prompt", "a", "--max-tokens", "999999")[0] in (2, 3)


def test_a_conversation(ran: Path, posttrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def talk(*lines: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return posttrain("chat", str(ran), "--max-tokens", "4", "--temperature", "0")

    code, out, err = talk("1+1=", "/undo", "/what", "/new", "2+2=", "/quit", "never read")
    assert code == 0 and not err and "0 turns are left" in out and "/what is not known" in out
    [alone] = {out.splitlines()[-1]}
    again = talk("2+2=")[1].splitlines()[-1]
    assert alone == again, "a new conversation remembers nothing"
    long = talk(*["1+2+3+4+5+6+7+8+9=" * 200] * 2)
    assert long[0] == 0 and "Begin a new conversation: /new" in long[2]


def test_the_command_that_serves(ran: Path, posttrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name in ("vllm", "fastapi", "uvicorn") else None)
    code, out, _ = posttrain("serve", str(ran), "--at", "checkpoint-2", "--dry-run", "--option=--max-model-len=64")
    assert (
        code == 0 and f"--model {ran.parent / 'base'}" in out and "--lora-modules run=" in out and "--max-model-len=64" in out
    )
    out = posttrain("serve", str(ran), "--dry-run")[1]
    assert f"--model {ran / 'final'} --served-model-name run" in out and "--host 127.0.0.1 --port 8000" in out
    assert f"serve {ran / 'final'} --host" in posttrain("serve", str(ran), "--engine", "hf", "--dry-run")[1]
    code, _, err = posttrain("serve", str(ran), "--at", "adapter", "--engine", "hf", "--dry-run")
    assert code == 4 and "Merge it" in err
    config = ran / "checkpoint-2" / "adapter_config.json"
    plain = json.loads(config.read_text())
    for other in ({"peft_type": "OFT"}, {"use_dora": True}, {"init_lora_weights": "pissa"}):
        config.write_text(json.dumps({**plain, **other}))
        code, _, err = posttrain("serve", str(ran), "--at", "checkpoint-2", "--engine", "vllm", "--dry-run")
        assert code == 4 and "Merge it" in err
    config.write_text(json.dumps(plain))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = posttrain("serve", str(ran), "--engine", "vllm", "--dry-run")
    assert code == 4 and "pip install 'posttrain[vllm]'" in err
    assert posttrain("serve", str(ran), "--engine", "tgi", "--dry-run")[0] == 2


def test_what_would_be_sent(ran: Path, tmp_path: Path, posttrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    parcel = packed(choose(str(ran)), "org/name")
    names = {name for name, _ in parcel.files}
    assert {"README.md", "model.safetensors", "adapter/adapter_model.safetensors"} <= names
    assert parcel.size == sum(path.stat().st_size for path in (ran / "final").rglob("*") if path.is_file())
    checkpoint = {name for name, _ in packed(choose(str(ran), "3"), "org/name").files}
    assert not checkpoint & {"optimizer.pt", "trainer_state.json", "rng_state.pth", "loop_0.json"}
    for wrong, expected in (("name", "has no owner"), ("a b/c", "alphanumeric")):
        with pytest.raises(RecipeError, match=expected):
            packed(choose(str(ran)), wrong)
    with pytest.raises(RecipeError, match="is no folder of this machine"):
        packed(choose("org/model"), "org/name")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, err = posttrain("push", str(ran), "org/name")
    assert code == 2 and "--yes sends it" in err and "private" in out and "model.safetensors" in out
    for name in (".env", "optimizer.pt", "shard_0.pt", "notes.log"):
        (ran / "final" / name).write_text("private")
    assert {one for one, _ in packed(choose(str(ran)), "org/name").files} == names
    for name in (".env", "optimizer.pt", "shard_0.pt", "notes.log"):
        (ran / "final" / name).unlink()
    leaky = tmp_path / "leaky"
    shutil.copytree(ran / "final", leaky)
    (leaky / "README.md").write_text(f"token hf_{'a' * 30}")
    code, _, err = posttrain("push", str(leaky), "org/name", "--yes")
    assert code == 2 and "looks like a secret" in err and "hf_aaa" not in err


def test_sending_without_a_login_or_a_hub(ran: Path, posttrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttrain.execution.use.pushing.get_token", lambda: None)
    code, _, err = posttrain("push", str(ran), "org/name", "--yes")
    assert code == 4 and "nobody is logged in" in err
    monkeypatch.setattr("posttrain.execution.use.pushing.get_token", lambda: "hf_" + "b" * 30)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    code, _, err = posttrain("push", str(ran), "org/name", "--yes")
    assert code == 4 and ("cannot be reached" in err or "HF_HUB_OFFLINE" in err) and "hf_bbb" not in err
