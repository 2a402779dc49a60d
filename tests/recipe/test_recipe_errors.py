"""A bad recipe: exit code 2, one message with file, line and path, no traceback, nothing written, no torch.

The cases run in one child process, which reports what each of them did: a process for each would take a minute.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.errors import RecipeError
from posttrain.recipe.recipe import Recipe, load_recipe
from posttrain.recipe.resolve.resolved import NOT_BUILT
from recipes import Command, recipe

HEAVY = ("torch", "transformers", "datasets", "trl", "peft", "accelerate")
GOOD = """\
model:
  from_scratch: {hidden_size: 32, num_attention_heads: 1}
  tokenizer: characters
algorithm:
  name: dpo
  beta: 0.1
data:
  train: {task: chain, rows: 8}
  eval:
    held_out:
      path: test.jsonl
      columns: {prompt: question}
training:
  max_steps: 2
eval:
  samples: 2
rewards:
  - name: exact_match
seed: 0
output_dir: runs/x
"""


@dataclass(frozen=True)
class Case:
    """Text replaced in the good recipe (or the whole of it), and what the message must say."""

    change: tuple[str, str] | str
    says: str
    line: int | None = None

    @property
    def text(self) -> str:
        if isinstance(self.change, str):
            return self.change
        assert GOOD.count(self.change[0]) == 1, self.change
        return GOOD.replace(*self.change)


def top(line: str, says: str) -> Case:
    return Case(("seed: 0\n", f"seed: 0\n{line}\n"), says, 20)


def grpo(
    rollout: dict[str, Any], training: dict[str, Any], says: str, rewards: list[Any] | None = None, **algorithm: Any
) -> Case:
    """The good recipe with GRPO; the place is the file's nearest line."""
    values: dict[str, Any] = yaml.safe_load(GOOD)
    values["algorithm"] = {"name": "grpo", **algorithm}
    values["training"].update(training)
    values["rollout"] = rollout
    values["rewards"] = values["rewards"] if rewards is None else rewards
    return Case(yaml.safe_dump(values), says)


CASES = [
    # Unknown keys at every level, with the nearest valid one.
    Case(("seed: 0", "sede: 0"), "sede: unknown key; did you mean seed?", 19),
    Case(("tokenizer:", "tokeniser:"), "model.tokeniser: unknown key; did you mean tokenizer?", 3),
    Case(("hidden_size: 32", "hiden_size: 32"), "model.from_scratch.hiden_size: unknown key; did you mean hidden_size?", 2),
    Case(("  beta: 0.1", "  bata: 0.1"), "algorithm.bata: unknown key; did you mean beta?", 6),
    Case(("rows: 8", "row: 8"), "data.train.row: unknown key; did you mean rows?", 8),
    Case(("      columns", "      colums"), "data.eval.held_out.colums: unknown key; did you mean columns?", 12),
    Case(("prompt: question", "question: prompt"), "data.eval.held_out.columns.question: ", 12),
    Case(("  max_steps: 2", "  max_step: 2"), "training.max_step: unknown key; did you mean max_steps?", 14),
    Case(("  samples: 2", "  sample: 2"), "eval.sample: unknown key; did you mean samples?", 16),
    Case(
        ("  - name: exact_match", "  - {name: exact_match, wieght: 1}"),
        "rewards.0.wieght: unknown key; did you mean weight?",
        18,
    ),
    Case(("  tokenizer: characters", "  tokenizer: characters\n  adapter: {rank: 4}"), "model.adapter.rank: unknown key", 4),
    # Names that other tools have.
    *(
        Case(("  max_steps: 2", f"  max_steps: 2\n  {name}: 1"), f"training.{name}: unknown key; here it is {ours}", 15)
        for name, ours in {
            "batch_size": "training.rows_per_step",
            "per_device_train_batch_size": "training.rows_per_step",
            "lr": "training.learning_rate",
            "num_train_epochs": "training.epochs",
            "gradient-accumulation-steps": "training.rows_per_step",
        }.items()
    ),
    Case(("seed: 0", "seed: 0\nnum_generations: 8"), "num_generations: unknown key; here it is rollout.n", 20),
    Case(("  tokenizer:", "  lora_r: 8\n  tokenizer:"), "model.lora_r: unknown key; here it is model.adapter.r", 3),
    Case(("  tokenizer:", "  load_in_4bit: true\n  tokenizer:"), "unknown key; here it is model.quantization", 3),
    Case(("name: dpo", "name: ppo"), "algorithm.name: ppo is unknown; it has a critic, which is not part of this version", 5),
    Case(("name: dpo", "name: GRPO"), "algorithm.name: GRPO is unknown; did you mean grpo?", 5),
    Case(("name: dpo", "name: gpro"), "algorithm.name: gpro is unknown; did you mean grpo, gspo or gmpo?", 5),
    # What no machine could do.
    Case(("output_dir: runs/x", f"output_dir: {'x' * 300}"), "output_dir: a folder's name has at most 200 bytes", 20),
    Case(("output_dir: runs/x", 'output_dir: "a\\0b"'), "output_dir: a folder's name has at most 200 bytes", 20),
    Case(("  max_steps: 2", "  max_steps: 2\n  rows_per_step: 1000000000"), "training.rows_per_step: ", 15),
    Case(("data:\n", "data:\n  prompt_template: '{prompt:>999999999}'\n"), "a field is made no wider than 1000", 8),
    Case(("data:\n", "data:\n  prompt_template: '{prompt:{prompt}}'\n"), "has no field in its format", 8),
    Case(("  - name: exact_match", "  - {name: function, path: nonsense}"), "'nonsense' names no object: file.py:object", 18),
    # Names.
    Case(("name: dpo", "name: dpoo"), "algorithm.name: dpoo is unknown; did you mean dpo", 5),
    Case(("name: dpo", "name: quantum"), "algorithm.name: quantum is unknown; there are sft, dft,", 5),
    Case(("tokenizer: characters", "tokenizer: words"), "model.tokenizer: ", 3),
    Case(("task: chain", "task: chess"), "data.train.task: ", 8),
    Case(("name: exact_match", "name: exact"), "rewards.0.name: ", 18),
    Case(
        ("  max_steps: 2", "  max_steps: 2\n  layout: padded\n  compile: true"),
        "compile: layers are compiled for packed rows",
        13,
    ),
    Case(("  max_steps: 2", "  max_steps: 2\n  lr_scheduler_type: linaer"), "training.lr_scheduler_type: ", 15),
    # Missing keys.
    Case(("output_dir: runs/x\n", ""), "output_dir: is required"),
    Case(("  name: dpo\n", ""), "algorithm.name: is required", 4),
    Case(("rows: 8", "seed: 8"), "data.train.rows: is required", 8),
    Case(("  train: {task: chain, rows: 8}\n", ""), "data.train: is required", 7),
    Case(("{task: chain, rows: 8}", "{rows: 8}"), "data.train: a source has one of the keys path, hub, task", 8),
    Case(("  tokenizer: characters\n", ""), "model: tokenizer (bytes or characters) goes with from_scratch", 1),
    # Types and ranges.
    Case(("seed: 0", "seed: zero"), "seed: input should be a valid integer", 19),
    Case(("seed: 0", "seed: -1"), "seed: input should be greater than or equal to 0 (it is -1)", 19),
    Case(("seed: 0", "seed: 5000000000"), "seed: ", 19),  # numpy's stream takes 32 bits
    Case(("output_dir: runs/x", "output_dir: [x]"), "output_dir: input should be a valid string", 20),
    Case(("output_dir: runs/x", "output_dir: ''"), "output_dir: ", 20),
    Case(("beta: 0.1", "beta: 0"), "algorithm.beta: input should be greater than 0", 6),
    Case(("beta: 0.1", "beta: .nan"), "algorithm.beta: ", 6),
    Case(("beta: 0.1", "beta: .inf"), "algorithm.beta: ", 6),
    Case(("  max_steps: 2", "  max_steps: 2.5"), "training.max_steps: ", 14),
    Case(("  max_steps: 2", "  max_steps: 2\n  learning_rate: .inf"), "training.learning_rate: ", 15),
    Case(("  samples: 2", "  samples: 2\n  top_p: 1.5"), "eval.top_p: ", 17),
    Case(("algorithm:\n  name: dpo\n  beta: 0.1\n", "algorithm: dpo\n"), "algorithm: ", 4),
    Case(
        ("rewards:\n  - name: exact_match\n", "rewards: [{name: task}, {name: task}]\n"), "rewards: each may stand once", 17
    ),
    Case(
        ("  held_out:\n      path: test.jsonl\n      columns: {prompt: question}\n", "  held_out: test.jsonl\n"),
        "data.eval.held_out: ",
        10,
    ),
    # What contradicts itself.
    Case(("  max_steps: 2", "  max_steps: 2\n  epochs: 1"), "training: give either max_steps or epochs", 13),
    Case(("  max_steps: 2", "  learning_rate: 1e-4"), "training: give either max_steps or epochs", 13),
    Case(("  samples: 2", "  samples: 2\n  k: [4]"), "eval: pass@4 cannot be estimated from samples: 2", 15),
    Case(
        ("  samples: 2", "  metric: test/loss"),
        "eval.metric: test/loss is not <set>/<name> of a set in data.eval (held_out)",
        16,
    ),
    Case(("  samples: 2", "  metric: held_out"), "eval.metric: held_out is not", 16),
    Case(
        ("{hidden_size: 32, num_attention_heads: 1}", "{hidden_size: 40, num_attention_heads: 1}"),
        "vLLM serves heads of size 32",
        2,
    ),
    Case(
        ("  tokenizer: characters", "  tokenizer: characters\n  name: Qwen/Qwen3-0.6B"),
        "model: give either name or from_scratch",
        1,
    ),
    Case(
        (GOOD[: GOOD.index("algorithm")], "model: {name: org/model, trust_remote_code: true}\n"),
        "pin revision to a full commit hash",
        1,
    ),
    Case(
        (GOOD[: GOOD.index("algorithm")], "model: {name: a/b, trust_remote_code: true, revision: main}\n"), "pin revision", 1
    ),
    Case((GOOD[: GOOD.index("algorithm")], "model: {name: ''}\n"), "model.name: ", 1),
    Case(("data:\n", "data:\n  prompt_template: 'no field'\n"), "data.prompt_template: ", 8),
    Case(("data:\n", "data:\n  prompt_template: '{prompt'\n"), "data.prompt_template: ", 8),
    Case(("data:\n", "data:\n  prompt_template: '{0}'\n"), "data.prompt_template: ", 8),
    Case(("data:\n", "data:\n  prompt_template: '{prompt.__class__}'\n"), "data.prompt_template: ", 8),
    Case(
        ("data:\n", "data:\n  chat_template: false\n  system_prompt: x\n"), "system_prompt and chat_template_kwargs need", 7
    ),
    # Extra training arguments.
    Case(
        ("  max_steps: 2", "  max_steps: 2\n  extra: {optm: adamw_torch}"),
        "optm is no field of transformers.TrainingArguments; did you mean optim?",
        15,
    ),
    Case(
        ("  max_steps: 2", "  max_steps: 2\n  extra: {num_train_epochs: 2}"),
        "num_train_epochs is set by the recipe itself: training.epochs",
        15,
    ),
    *(
        Case(("  max_steps: 2", f"  max_steps: 2\n  extra: {{optim: {name}}}"), f"training.extra: optim: {name} {says}", 15)
        for name, says in {
            "adamw_8bits": "is no optimizer of transformers; did you mean adamw_8bit or ",
            "lion": "is no optimizer of transformers; did you mean ",
            "lomo": "changes weights during the backward pass",
            "galore_adamw_layerwise": "changes weights during the backward pass",
            "galore_adamw": "needs optim_target_modules beside it",
        }.items()
    ),
    # What this version does not do.
    *(
        top(f"{key}: {{}}", f"{key}: {what} is not part of this version; the README lists what is")
        for key, what in NOT_BUILT.items()
    ),
    # Rollouts.
    *(
        Case(("name: dpo\n  beta: 0.1", f"name: {name}"), f"algorithm.name: {name} trains on rollouts: add rollout", 5)
        for name in ("grpo", "dapo", "gspo", "cispo", "reinforce", "rloo")
    ),
    Case(("seed: 0", "seed: 0\nrollout: {n: 4}"), "rollout: dpo trains on the data as they are", 20),
    grpo({"n": 4, "max_tokens": 9}, {"rows_per_step": 6}, "training.rows_per_step: 6 must divide the 128 rollouts"),
    grpo({"n": 4, "questions_per_step": 3}, {"rows_per_step": 6}, "training.rows_per_step: 6 must divide the 12 rollouts"),
    grpo({"engine": "vlm"}, {}, "rollout.engine: "),
    grpo({"vllm": {"mode": "server"}}, {}, "rollout: vllm: its settings need engine: vllm"),
    *(
        grpo({"engine": "vllm", "vllm": vllm}, {}, f"rollout.vllm: {says}")
        for vllm, says in (
            ({"weights": "ipc"}, "weights: ipc goes from one process to another; an engine in the process is handed tensors"),
            ({"weights": "nccl"}, "weights: nccl goes from one process to another"),
            ({"mode": "server", "weights": "nccl"}, "weights: nccl goes to a GPU that nobody trains on"),
            ({"mode": "server", "weights": "nccl", "devices": [1, 2]}, "weights: nccl goes to one server; several take disk"),
            ({"mode": "server", "weights": "nccl", "devices": ["cpu"]}, "weights: nccl goes between GPUs"),
            ({"mode": "server", "weights": "ipc", "url": "http://127.0.0.1:1"}, "weights: ipc goes to a server that the run"),
            ({"mode": "server", "weights": "ipc", "tensor_parallel_size": 2}, "weights: ipc reaches one GPU"),
            ({"mode": "server", "weights": "ipc", "weights_folder": "w"}, "weights_folder is of weights: disk"),
        )
    ),
    grpo({"engine": "vllm", "vllm": {"mode": "server", "sleep": True}}, {}, "sleep: an engine in the process gives its"),
    grpo({"engine": "vllm", "vllm": {"url": "http://a:1"}}, {}, "url is of a server: set mode: server"),
    grpo({"ahead": -1}, {}, "rollout.ahead: input should be greater than or equal to 0"),
    grpo({"ahead": 1}, {}, "by servers that load weights from a folder, and engine: hf is something else", correction={}),
    grpo({"ahead": 1, "engine": "vllm"}, {}, "and vllm.mode: in_process is something else", correction={}),
    grpo(
        {"ahead": 1, "engine": "vllm", "vllm": {"mode": "server", "weights": "nccl", "devices": [1]}},
        {},
        "and vllm.weights: nccl is something else",
        correction={},
    ),
    grpo({"ahead": 2, "engine": "vllm", "vllm": {"mode": "server"}}, {}, "rollout.ahead: 2 trains on what older weights"),
    grpo({"temperature": 0}, {}, "rollout.temperature: "),
    grpo({"n": 4}, {}, "algorithm.rollouts: it follows from rollout", rollouts=3),
    grpo({"n": 1}, {}, "a group of one has no baseline, and nothing could be learnt: set rollout.n to 2 or more"),
    grpo({"n": 1}, {}, "baseline: a group of one has no mean", name="reinforce", baseline="group_mean"),
    grpo({}, {}, "algorithm: kl: k1 in the loss has an expected gradient of zero", kl="k1"),
    grpo({}, {}, "algorithm: kl: the reward takes k1", kl="k3", kl_in="reward"),
    grpo({}, {}, "algorithm: correction: with old: sampler there is no gap", old="sampler", correction={}),
    Case(
        ("tokenizer: characters", "tokenizer: characters\n  teachers: {a: {name: x}}"),
        "model.teachers: dpo learns from no teacher",
    ),
    Case(("name: dpo\n  beta: 0.1", "name: kd"), "model.teachers: kd learns from one: add {NAME: {name: …}}"),
    Case(
        GOOD.replace("name: dpo\n  beta: 0.1", "name: kd").replace(
            "characters", "characters\n  teachers: {a: {name: x}, b: {name: y}}"
        ),
        "model.teachers: kd learns from one, and there are a, b",
    ),
    Case(
        ("tokenizer: characters", "tokenizer: characters\n  teachers: {a b: {name: x}}"),
        "model.teachers.a b.[key]: string should match",
    ),
    top("stages: [{name: a b}]", "stages.0.name: "),
    top("stages: [{stages: [{}]}]", "stages.0.stages: "),
    top("stages: [{training: {max_stepps: 3}}]", "stages.0.training.max_stepps: unknown key; did you mean max_steps?"),
    # Several processes.
    top("distributed: {mode: zero4}", "distributed.mode: input should be 'ddp', 'zero1'"),
    top("distributed: {processes: 0}", "distributed.processes: input should be greater than or equal to 1"),
    top("distributed: {offload: true}", "distributed: offload: ddp keeps everything on the device"),
    top("distributed: {proceses: 2}", "distributed.proceses: unknown key; did you mean processes?"),
    top("stages: [{distributed: {mode: zero4}}]", "stages.0.distributed.mode: "),
    top(
        "stages: [{}, {distributed: {processes: 2}}]", "stages.1.distributed.processes: all stages run in the same processes"
    ),
    # Rewards.
    grpo({}, {}, "rewards.0.name: majorty_vote is unknown; did you mean majority_vote?", [{"name": "majorty_vote"}]),
    grpo({}, {}, "rewards.0: verdict: length does not say which answers are right", [{"name": "length", "verdict": True}]),
    grpo({}, {}, "rewards.0: pattern: it goes with form: pattern", [{"name": "format", "form": "pattern"}]),
    grpo({}, {}, "rewards.0.pattern: no regular expression", [{"name": "format", "form": "pattern", "pattern": "("}]),
    grpo({}, {}, "rewards.0.peak: ", [{"name": "length", "peak": 1.0}]),
    grpo({}, {}, "rewards.0.path: ", [{"name": "function", "path": "os.system('x')"}]),
    grpo({}, {}, "rewards.0.max_error_rate: ", [{"name": "task", "max_error_rate": 2}]),
    grpo({}, {}, "rewards: each may stand once", [{"name": "function", "path": "a.f"}, {"name": "function", "path": "b.f"}]),
    grpo({}, {}, "rewards.0.path: reward/mean is another metric", [{"name": "function", "path": "a.mean"}]),
    grpo({}, {}, "rewards.0.path: reward/right_minus_wrong is", [{"name": "function", "path": "a.right_minus_wrong"}]),
    grpo({}, {}, "rewards.0.deadline: ", [{"name": "function", "path": "a.f", "deadline": 1e9}]),
    grpo({}, {}, "rewards.0.weight: ", [{"name": "length", "weight": 1e7}]),
    grpo({}, {}, "rewards: each has weight: 0, and nothing would be learnt", [{"name": "length", "weight": 0}]),
    grpo({}, {}, "rewards.0: cache: 9 is not below max_length: 9", [{"name": "overlong", "max_length": 9, "cache": 9}]),
    grpo({}, {}, "rewards.0.pattern: no regular", [{"name": "format", "form": "pattern", "pattern": "\\p{Nonsense}"}]),
    grpo({}, {}, "hpt asks which rollouts are right", [{"name": "function", "path": "a.f"}], name="hpt"),
    grpo({}, {}, "hpt asks which rollouts are right", [{"name": "majority_vote"}], name="hpt"),
    # Not a recipe.
    Case("", "a mapping with the keys of a recipe is expected"),
    Case("- a\n- b\n", "a mapping with the keys of a recipe is expected"),
    Case("just text", "a mapping with the keys of a recipe is expected"),
    Case("a: [1\n", "not YAML: "),
    Case("a: 1\n---\nb: 2\n", "not YAML: "),
    Case("a: !!python/object/apply:os.system [true]\n", "not YAML: "),
    Case(GOOD + "seed: 1\n", "seed: the key stands twice", 21),
    Case(("  beta: 0.1", "  name: dpo"), "algorithm.name: the key stands twice", 6),
    Case("1: 2\n", "unknown key", 1),
    Case(("seed: 0", "seed: 2021-13-45"), "not YAML: "),  # the safe loader's own error for such a date is a ValueError
    Case(("seed: 0", "seed: !!int zero"), "not YAML: "),
    Case(("seed: 0", "seed: &loop [*loop]"), ": "),
]
CHILD = """
import json, os, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from posttrain import cli

def attempt(arguments):
    sys.argv = ["posttrain", *arguments]
    out, err, raised = StringIO(), StringIO(), None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException as error:
            code, raised = None, repr(error)[:200]
    return {"code": code, "raised": raised, "out": out.getvalue(), "err": err.getvalue()}

done = [attempt(arguments) for arguments in json.load(sys.stdin)]
print(json.dumps({"done": done, "modules": sorted(sys.modules), "files": sorted(os.listdir("."))}))
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    recipes, empty = tmp_path_factory.mktemp("recipes"), tmp_path_factory.mktemp("empty")
    (recipes / "bytes.yaml").write_bytes(b"a: \xff\n")
    (recipes / "good.yaml").write_text(GOOD)
    paths = []
    for i, case in enumerate(CASES):
        paths.append(recipes / f"{i}.yaml")
        paths[-1].write_text(case.text)
    more = [recipes / "good.yaml", recipes / "absent.yaml", recipes, recipes / "bytes.yaml"]
    asked = json.dumps([["validate", str(path)] for path in [*paths, *more]])
    child = subprocess.run([sys.executable, "-c", CHILD], input=asked, capture_output=True, text=True, cwd=empty, check=True)
    return {"paths": [*paths, *more], **json.loads(child.stdout)}


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{i}-{case.says[:50]}" for i, case in enumerate(CASES)])
def test_a_bad_recipe_is_one_message_with_its_place(outcome: dict[str, Any], number: int) -> None:
    case, path, done = CASES[number], outcome["paths"][number], outcome["done"][number]
    assert done["raised"] is None
    assert done["code"] == 2 and done["out"] == ""
    message = done["err"].removeprefix("error: ")
    place = f"{path}:{case.line}: " if case.line is not None else f"{path}"
    assert message.startswith(place) and case.says in message
    assert "Traceback" not in message and "pydantic" not in message and "<unicode string>" not in message


def test_a_good_recipe_is_valid_and_nothing_heavy_was_imported_for_any(outcome: dict[str, Any]) -> None:
    good, absent, folder, not_utf8 = outcome["done"][-4:]
    assert good["code"] == 0 and "good.yaml is valid: dpo on qwen2 from scratch." in good["out"] and not good["err"]
    assert absent["code"] == folder["code"] == not_utf8["code"] == 2
    assert "absent.yaml: No such file" in absent["err"] and "directory" in folder["err"] and "not UTF-8" in not_utf8["err"]
    assert not set(outcome["modules"]) & set(HEAVY)
    assert outcome["files"] == []  # nothing was written where they ran


def test_a_child_process_of_its_own_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(GOOD.replace("seed: 0", "sede: 0"))
    command = [sys.executable, "-m", "posttrain", "validate", "bad.yaml"]
    child = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (child.returncode, child.stdout) == (2, "")
    assert child.stderr.strip() == "error: bad.yaml:19: sede: unknown key; did you mean seed?"
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(GOOD)
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("seed=7", "seed", 7),
        ("algorithm.beta=0.5", "algorithm.beta", 0.5),
        ("training.learning_rate=1e-4", "training.learning_rate", 1e-4),
        ("training.learning_rate=1.0e-4", "training.learning_rate", 1e-4),
        ("training.micro_batch_rows=null", "training.micro_batch_rows", None),
        ("training.report_to=[tensorboard]", "training.report_to", ["tensorboard"]),
        ("eval.k=[1, 2]", "eval.k", [1, 2]),
        ("model.adapter.r=4", "model.adapter.r", 4),
        ("data.system_prompt=a=b", "data.system_prompt", "a=b"),
        ("output_dir=runs/y", "output_dir", "runs/y"),
        ("output_dir='5'", "output_dir", "5"),
        ("training.extra.optim=sgd", "training.extra", {"optim": "sgd"}),
    ],
)
def test_overrides(recipe_file: Path, assignment: str, path: str, value: Any) -> None:
    found: Any = load_recipe(recipe_file, [assignment])
    for key in path.split("."):
        found = getattr(found, key)
    assert found == value


def test_later_overrides_win_and_the_file_is_left_alone(recipe_file: Path) -> None:
    assert load_recipe(recipe_file, ["seed=1", "seed=2"]).seed == 2
    assert load_recipe(recipe_file).seed == 0


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("seed", "--set seed: key.path=value is expected"),
        ("=3", "--set =3: key.path=value is expected"),
        ("a..b=3", "--set a..b=3: key.path=value is expected"),
        ("seed.x=3", "--set seed.x=3: before x there is a value, without keys"),
        ("rewards.0.name=x", "--set rewards.0.name=x: rewards.0.name: x is unknown; there are math_verify"),
        ("rewards.1.name=x", "--set rewards.1.name=x: before 1 there is a list of 1, counted from 0"),
        ("eval.k=[1", "--set eval.k=[1: not YAML"),
        ("seed=2021-13-45", "--set seed=2021-13-45: "),
        ("algorithm.bata=3", "--set algorithm.bata=3: algorithm.bata: unknown key; did you mean beta?"),
        ("seed=x", "--set seed=x: seed: input should be a valid integer"),
        ("training.epochs=1", "training: give either max_steps or epochs"),
    ],
)
def test_bad_overrides(recipe_file: Path, assignment: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file, [assignment])
    assert message in str(caught.value)


def test_an_override_is_named_where_it_made_a_section_wrong(recipe_file: Path) -> None:
    """A section that the file does not have has no line: only the override can be its place."""
    recipe_file.write_text(GOOD.replace("eval:\n  samples: 2\n", ""))
    with pytest.raises(RecipeError, match=r"^--set eval\.k=\[4\]: eval: pass@4"):
        load_recipe(recipe_file, ["eval.k=[4]"])


def test_every_fault_is_told_at_once(recipe_file: Path) -> None:
    recipe_file.write_text(GOOD.replace("beta: 0.1", "beta: 0").replace("max_steps: 2", "max_steps: 0"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file)
    assert [re.sub(r".*:(\d+: [a-z._]+):.*", r"\1", line) for line in str(caught.value).splitlines()] == [
        "6: algorithm.beta",
        "14: training.max_steps",
    ]


def with_numbers(recipe_file: Path, model: str, bf16: str) -> Recipe:
    text = f"model: {{name: a/b, {model}}}\n" + GOOD[GOOD.index("algorithm") :]
    recipe_file.write_text(text.replace("max_steps: 2", f"max_steps: 2\n  bf16: {bf16}"))
    return load_recipe(recipe_file)


@pytest.mark.parametrize(
    ("model", "bf16", "computed"),
    [
        ("dtype: bfloat16", "true", "bfloat16"),
        ("dtype: float32", "true", "bfloat16"),
        ("dtype: bfloat16", "false", "float32"),
        ("compute: bfloat16", "true", "bfloat16"),
        ("compute: float32", "null", "float32"),
        ("dtype: bfloat16", "null", None),
        ("dtype: float64", "false", None),  # as runs of before have it written
    ],
)
def test_bf16_is_another_name_of_compute(model: str, bf16: str, computed: str | None, recipe_file: Path) -> None:
    recipe = with_numbers(recipe_file, model, bf16)
    assert (recipe.model.compute, recipe.training.bf16) == (computed, None)


@pytest.mark.parametrize(
    ("model", "bf16", "says"),
    [
        (
            "compute: float32",
            "true",
            r"recipe\.yaml:\d+: training\.bf16: it is another name of .*, which is float32",
        ),
        ("compute: bfloat16", "false", r"recipe\.yaml:\d+: training\.bf16: it is another name of model\.compute"),
        ("dtype: float64", "true", r"recipe\.yaml:\d+: model: dtype: float64 is computed in float64"),
        ("dtype: float64, compute: float32", "null", "leave compute: float32 out"),
        ("compute: float16", "null", r"recipe\.yaml:\d+: model\.compute: "),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(model: str, bf16: str, says: str, recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match=says):
        with_numbers(recipe_file, model, bf16)


def test_a_recipe_survives_its_own_dump(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True)))
    assert load_recipe(again) == recipe and isinstance(recipe, Recipe)


def test_the_weights_of_rewards_are_those_of_the_recipe(recipe_file: Path) -> None:
    rewards = "rewards=[{name: exact_match, weight: 2.0}, {name: length, weight: -0.5}]"
    asked = ["algorithm={name: gdpo}", "rollout={n: 4, max_tokens: 8, questions_per_step: 4}", rewards]
    assert getattr(load_recipe(recipe_file, asked).algorithm, "reward_weights") == {"exact_match": 2.0, "length": -0.5}  # noqa: B009
    own = ["algorithm={name: gdpo, reward_weights: {exact_match: 1.0, length: 1.0}}", *asked[1:]]
    assert set(getattr(load_recipe(recipe_file, own).algorithm, "reward_weights").values()) == {1.0}  # noqa: B009


def test_what_a_stage_has_of_the_top_level_is_wrong_there(posttrain: Command) -> None:
    """Also a value that an override gives, of which the sentence is."""
    path = recipe(rollout={"n": 2, "questions_per_step": 2, "top_p": 7}, algorithm={"name": "grpo"}, stages=[{}])
    code, _, err = posttrain("validate", path)
    assert code == 2 and "rollout.top_p: input should be" in err and "stages.0" not in err, err
    code, _, err = posttrain("validate", path, "--set", "rollout.top_p=8")
    assert code == 2 and "--set rollout.top_p=8: rollout.top_p: input should be" in err, err
