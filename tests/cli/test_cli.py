"""The command line: lists, schema, plans, and a run's errors, each one message and its exit code, nothing half-written."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from cases import NAMES
from posttrain.algorithms.options import OnRollouts
from posttrain.environments.kinds import KIND as ENVIRONMENTS
from posttrain.execution.folder.same_recipe import RECIPE_BY_US
from posttrain.model.load import load
from posttrain.recipe.recipe import Recipe, load_recipe
from posttrain.rewards.grading import GRADERS
from posttrain.settings.doors.permissions import Permissions
from posttrain.settings.model import ModelConfig
from recipes import SCRATCH, Command, recipe, write

REPOSITORY = Path(__file__).parents[2]
RECIPES = sorted((REPOSITORY / "recipes").rglob("*.yaml"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder."""
    folder = tmp_path_factory.mktemp("model")
    model, tokenizer = load(ModelConfig.model_validate(SCRATCH), seed=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_valid_and_says_what_it_is(path: Path) -> None:
    recipe = load_recipe(path)
    head = list(itertools.takewhile(lambda line: line.startswith("# "), path.read_text().splitlines()))
    group = path.parent.name
    assert 20 < len(head[0]) <= 126, "it is its line of `list recipes`"
    assert recipe.output_dir == f"runs/{path.stem}"
    if group == "gpu":
        assert "Never run on a GPU" in head[1] and "GB" in head[1] and ("arXiv:" in head[2] or "No published" in head[2])
    elif group in ("start", "methods"):
        assert any(" s of " in line or "minute" in line for line in head), "how long it takes"
        assert any(line.startswith("# Look at ") for line in head)


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("algorithms", NAMES),
        ("rewards", GRADERS),
        ("environments", list(ENVIRONMENTS.members)),
        ("recipes", [path.stem for path in RECIPES]),
    ],
)
def test_list(posttrain: Command, monkeypatch: pytest.MonkeyPatch, what: str, names: Any) -> None:
    monkeypatch.chdir(REPOSITORY)
    code, out, err = posttrain("list", what)
    assert (code, err) == (0, "") and names
    assert all(name in out for name in names)


@pytest.mark.parametrize(
    "arguments", [["list", "nonsense"], ["list"], ["run"], ["fly"], ["run", "absent.yaml"], ["validate", "x", "--set"]]
)
def test_bad_usage(posttrain: Command, arguments: list[str], tmp_path: Path) -> None:
    code, _, err = posttrain(*arguments)
    assert code == 2 and err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_schema(posttrain: Command) -> None:
    code, out, _ = posttrain("schema")
    schema = json.loads(out)
    assert code == 0 and set(schema["properties"]) == set(Recipe.model_fields)
    assert set(schema["required"]) == {"model", "algorithm", "data", "training", "output_dir"}


def test_the_schema_describes_every_key(posttrain: Command) -> None:
    schema = json.loads(posttrain("schema")[1])
    kinds = {"Recipe": schema, **schema["$defs"]}
    keys = {(kind, key): of for kind, inner in kinds.items() for key, of in inner.get("properties", {}).items()}
    assert len(keys) > 400 and [place for place, of in keys.items() if len(of.get("description", "")) < 5] == []
    assert keys["GRPO", "kl_coef"]["description"] == keys["RLOO", "kl_coef"]["description"], "of what both are made of"
    assert keys["LUFFY", "rollouts"]["description"] != keys["GRPO", "rollouts"]["description"], "its own stands before that"
    assert {"description", "$ref"} <= keys["Recipe", "model"].keys()


def test_keys_of_a_subclass_elsewhere_are_described_as_well() -> None:
    class Own(OnRollouts):
        """One of an installed package."""

        name: Literal["own"] = "own"
        kl_coef: float = 0.5
        strange: int = 1
        """A key that nothing else has."""

        def build(self) -> Any: ...

    keys = Own.model_json_schema()["properties"]
    assert keys["strange"]["description"] == "A key that nothing else has."
    assert keys["kl_coef"]["description"] == OnRollouts.model_fields["kl_coef"].description


def test_a_dry_run_prints_the_plan_and_writes_nothing(posttrain: Command, tmp_path: Path) -> None:
    code, out, err = posttrain("run", recipe(), "--dry-run", "--set", "training.max_steps=30")
    assert (code, err) == (0, "")
    for word in ("parameters", "rows per step", "tokens per step", "steps", "30", "passes over the data"):
        assert word in out
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_run_and_the_same_again(posttrain: Command, tmp_path: Path) -> None:
    code, out, err = posttrain("run", recipe(), "--output-dir", "elsewhere")
    assert (code, err) == (0, "") and str(tmp_path / "elsewhere") in out
    assert (tmp_path / "elsewhere" / "final" / "model.safetensors").is_file() and not (tmp_path / "out").exists()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "elsewhere").rglob("*")}
    code, out, err = posttrain("run", recipe(), "--output-dir", "elsewhere")
    assert (code, err) == (0, "") and "is finished; nothing was done" in out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "elsewhere").rglob("*")} == files
    assert not list((tmp_path / "elsewhere").rglob("*.partial"))
    resolved = tmp_path / "elsewhere" / "recipe.yaml"
    older = {key: value for key, value in yaml.safe_load(resolved.read_text()).items() if key != "distributed"}
    resolved.write_text(yaml.safe_dump(older))
    assert posttrain("run", recipe(), "--output-dir", "elsewhere")[0] == 0  # a key that is newer has its default there
    code, _, err = posttrain("run", recipe(seed=1), "--output-dir", "elsewhere")
    assert code == 8 and "another recipe (seed: 0 then, 1 now)" in err


@pytest.mark.parametrize(
    "options", [[], ["--allow-code"], ["--allow-remote-engine", "--allow-code"], ["--allow-remote-environment"]]
)
def test_compare_hands_on_what_the_runs_may_do(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str]
) -> None:
    allowed: list[Permissions] = []

    def execute(study: Any, *, say: Any, permissions: Permissions) -> Path:
        allowed.append(permissions)
        return tmp_path

    write(tmp_path / "table.md")
    for name, stand_in in {"config.load_study": Path, "matrix.Matrix": Path, "execute.execute": execute}.items():
        monkeypatch.setattr(f"posttrain.execution.study.{name}", stand_in)
    assert posttrain("compare", "study.yaml", *options)[0] == 0
    names = {"remote_engine", "code", "remote_environment"}
    assert allowed == [Permissions(**{name: f"--allow-{name.replace('_', '-')}" in options for name in names})]


def data(**source: Any) -> dict[str, Any]:
    return {"data": {"train": source}}


GOOD = {"prompt": "1", "completion": "2"}
DATA_ERRORS: list[tuple[str, Callable[[], dict[str, Any]], str]] = [
    ("missing file", lambda: data(path="absent.jsonl"), "absent.jsonl: no such file"),
    ("wrong suffix", lambda: data(path=write(Path("rows.txt"), GOOD)), "files must end in .jsonl, .json, .csv"),
    (
        "wrong column",
        lambda: data(path=write(Path("rows.jsonl"), {"question": "1", "reply": "2"})),
        "rows.jsonl:1: the columns messages or text or prompt + completion are needed; the row has question, reply",
    ),
    (
        "wrong mapping",
        lambda: data(path=write(Path("rows.jsonl"), GOOD), columns={"prompt": "question"}),
        "has completion. columns looks for prompt in question, which it does not have.",
    ),
    ("empty", lambda: data(path=write(Path("rows.jsonl"))), "The source is empty"),
    ("bad row", lambda: data(path=write(Path("rows.jsonl"), GOOD, {"prompt": "1"})), "rows.jsonl:2: "),
    ("not JSON", lambda: (Path("rows.jsonl").write_text("{\n"), data(path="rows.jsonl"))[1], "rows.jsonl:1: not JSON"),
    (
        "wrong columns for the algorithm",
        lambda: {"algorithm": {"name": "dpo"}, **data(path=write(Path("rows.jsonl"), GOOD))},
        "the columns chosen + rejected are needed; the row has prompt, completion",
    ),
    (
        "all left out",
        lambda: {"data": {"train": {"path": write(Path("rows.jsonl"), {**GOOD, "prompt": 3})}, "on_bad_row": "skip"}},
        "All 1 were left out; the first: rows.jsonl:1: prompt must be text",
    ),
    (
        "empty evaluation",
        lambda: {"data": {"train": {"task": "chain", "rows": 8}, "eval": {"test": {"path": write(Path("rows.jsonl"))}}}},
        "data.eval.test: the source is empty",
    ),
    ("too few questions", lambda: data(task="countdown", split="held_out", rows=100_000), "fewer than 100000"),
]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in DATA_ERRORS], ids=[case[0] for case in DATA_ERRORS])
def test_data_errors(posttrain: Command, tmp_path: Path, make: Callable[[], dict[str, Any]], message: str) -> None:
    path = recipe(**make())
    before = sorted(tmp_path.rglob("*"))
    code, _, err = posttrain("run", path)
    assert code == 3 and message in err and err.count("error:") == 1
    assert sorted(tmp_path.rglob("*")) == before


def corrupt(name: str, content: str | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_text(content)

    return change


def grow_the_tokenizer(folder: Path) -> None:
    tokens = json.loads((folder / "tokenizer.json").read_text())
    extra = {f"<{i}>": 1000 + i for i in range(200)}
    tokens["model"]["vocab"].update(extra)
    (folder / "tokenizer.json").write_text(json.dumps(tokens))


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (corrupt("tokenizer.json", "{"), 4, "tokenizer of model cannot be loaded"),
        (corrupt("tokenizer.json", '{"version": "1.0"}'), 4, "tokenizer of model cannot be loaded"),
        (corrupt("config.json", "{"), 4, "model cannot be loaded"),
        (corrupt("config.json", None), 4, "model cannot be loaded"),
        (corrupt("model.safetensors", "torn"), 4, "model model cannot be loaded"),
        (corrupt("model.safetensors", None), 4, "model model cannot be loaded"),
        (shutil.rmtree, 4, "there is no such folder"),
        (grow_the_tokenizer, 4, "they do not belong together"),
        (corrupt("chat_template.jinja", None), 3, "no chat template"),
    ],
    ids=lambda value: getattr(value, "__qualname__", str(value))[:30],
)
def test_broken_models(
    posttrain: Command, tmp_path: Path, saved: Path, change: Callable[[Path], None], code: int, message: str
) -> None:
    shutil.copytree(saved, tmp_path / "model")
    change(tmp_path / "model")
    path = recipe(model={"name": "./model"})
    before = sorted(tmp_path.rglob("*"))
    found, _, err = posttrain("run", path)
    assert (found, err.count("error:")) == (code, 1) and message in err.replace("./", "") and len(err) < 600
    assert sorted(tmp_path.rglob("*")) == before


def rollouts(**options: Any) -> dict[str, Any]:
    return {
        "algorithm": {"name": "grpo"},
        "rollout": {"questions_per_step": 2, "n": 2, "max_tokens": 4, **options},
        "training": {"max_steps": 1},
    }


def occupied(text: str | None, name: str = "recipe.yaml") -> Callable[[], None]:
    def make() -> None:
        Path("out").mkdir()
        Path("out", name).write_text(text or "")

    return make


OTHER = yaml.safe_dump({"model": SCRATCH, "algorithm": {"name": "dft"}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (occupied("mine", "notes.txt"), "not empty and holds no run"),
        (occupied(RECIPE_BY_US + OTHER), "is no recipe of this version (data: is required)"),
        (occupied(RECIPE_BY_US + "a: [1"), "cannot be read"),
        (occupied(OTHER), "is of no run"),
        (occupied("text"), "out"),
        (occupied(None), "out"),
        (lambda: Path("out").write_text("a file"), "out"),
    ],
    ids=["no run", "other recipe", "torn recipe", "a user's recipe", "not a recipe", "empty recipe", "a file"],
)
def test_a_folder_that_holds_something_else(
    posttrain: Command, tmp_path: Path, make: Callable[[], None], message: str
) -> None:
    make()
    path = recipe()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    code, _, err = posttrain("run", path)
    assert code == 8 and message in err and "Choose another output_dir" in err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "codes", "message"),
    [
        # A metric that no evaluation has: known before anything is trained.
        ({"eval": {"metric": "test/pass@1"}}, (2, 3), "eval.metric"),
        ({"eval": {"metric": "test/nonsense", "samples": 1, "max_tokens": 2}}, (2, 3), "eval.metric"),
        ({"training": {"max_steps": 2, "rows_per_step": 8, "micro_batch_rows": 3}}, (2, 2), "micro_batch_rows"),
        ({"output_dir": "recipe.yaml/run"}, (4, 8), "recipe.yaml/run"),
        ({"training": {"max_steps": 2, "extra": {"optim": "nonsense"}}}, (2, 4), "nonsense"),
        ({"eval": {"samples": 1, "max_tokens": 9999}}, (2, 2), "eval.max_tokens: 9999 leaves no room"),
        (rollouts(max_tokens=9999), (2, 2), "rollout.max_tokens: 9999 leaves no room"),
        ({**rollouts(), "rewards": [{"name": "function", "path": "os.getcwd"}]}, (2, 2), "--allow-code"),
    ],
)
def test_what_cannot_work_leaves_no_folder(
    posttrain: Command, tmp_path: Path, changes: dict[str, Any], codes: tuple[int, int], message: str
) -> None:
    task = {"task": "chain", "rows": 8}
    path = recipe(data={"train": task, "eval": {"test": {**task, "split": "held_out"}}}, **changes)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = posttrain("run", path)
    assert code in codes and message in err and err.count("error:") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_eval_of_a_folder(posttrain: Command, tmp_path: Path, saved: Path) -> None:
    answers = ("eval", str(saved), "--data", "task:chain:held_out", "--limit", "3", "--samples", "2", "--max-tokens", "4")
    code, out, err = posttrain(*answers, "--k", "2", "--output", str(tmp_path / "eval.jsonl"))
    assert (code, err) == (0, "") and "pass@1" in out and "pass@2" in out and "majority@2" in out
    [line] = (tmp_path / "eval.jsonl").read_text().splitlines()
    metrics = json.loads(line)
    assert 0 <= metrics["eval/pass@1/low"] <= metrics["eval/pass@1"] <= metrics["eval/pass@1/high"] <= 1
    assert len((tmp_path / "eval-answers.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "absent.jsonl"], 3, "no such file"),
        (["--data", "task:chain:nonsense"], 2, "--data task:chain:nonsense"),
        (["--data", "task:chess"], 2, "--data task:chess"),
        (["--data", "task:chain", "--k", "9"], 2, "pass@9 cannot be estimated"),
        (["--data", "task:chain", "--top-p", "2"], 2, "top_p"),
        (["--data", "task:chain", "--dtype", "int8"], 2, "dtype"),
        (["--data", "rows.jsonl", "--columns", "prompt"], 2, "OURS=THEIRS"),
        (["--data", "rows.jsonl", "--columns", "nonsense=a"], 2, "--data rows.jsonl"),
        (["--data", "rows.jsonl", "--grader", "oracle"], 2, "--grader oracle"),
        (["--data", "rows.jsonl", "--columns", "prompt=absent"], 3, "rows.jsonl:1: the columns prompt + answer"),
        (["--data", "rows.jsonl", "--prompt-template", "none"], 2, "prompt_template"),
        pytest.param(
            ["--data", "task:countdown:held_out", "--limit", "100000"], 3, "fewer than 100000", marks=pytest.mark.system
        ),
    ],
)
def test_eval_errors(posttrain: Command, tmp_path: Path, saved: Path, arguments: list[str], code: int, message: str) -> None:
    write(tmp_path / "rows.jsonl", {"prompt": "1", "answer": "2"})
    before = sorted([*tmp_path.rglob("*"), *saved.rglob("*")])
    found, _, err = posttrain("eval", str(saved), *arguments)
    assert found == code and message in err and "Traceback" not in err
    assert sorted([*tmp_path.rglob("*"), *saved.rglob("*")]) == before


@pytest.mark.parametrize(("text", "final"), [("a: [1", True), ("text", True), ("a: 1", False)])
def test_eval_of_a_torn_run(posttrain: Command, tmp_path: Path, saved: Path, text: str, final: bool) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(text)
    if final:
        shutil.copytree(saved, tmp_path / "run" / "final")
    code, _, err = posttrain("eval", "run", "--data", "task:chain", "--limit", "1")
    assert code in (2, 8) and "run" in err
