"""What a command imports before it says its first line, and what a dry run imports at all."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from recipes import recipe

WITHOUT_TORCH = """
import sys
HEAVY = ("torch", "transformers", "accelerate", "peft", "datasets", "deepspeed", "trl", "vllm", "pandas", "scipy", "numpy",
         "tokenizers", "safetensors", "jinja2", "pyarrow")
class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name in HEAVY:
            raise SystemExit(9)
sys.meta_path.insert(0, Refuses())
sys.argv = ["posttrain", *sys.argv[1:]]
from posttrain.cli import main
main()
"""
MODULES = """
import json, sys
sys.argv = ["posttrain", *sys.argv[1:]]
from posttrain.cli import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)))
"""


def modules(*arguments: str) -> set[str]:
    """What a command has imported when it ends well."""
    done = subprocess.run([sys.executable, "-c", MODULES, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "recipe.yaml"], ": sft on qwen2 from scratch, in out"),
        (["eval", "some/model", "--data", "task:chain"], ": some/model on task:chain: "),
    ],
)
def test_the_first_line_comes_before_torch_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe()
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert done.stdout.startswith(f"posttrain {version('posttrain')} on ") and says in done.stdout.splitlines()[0]


@pytest.mark.system
def test_a_dry_run_imports_what_its_recipe_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sampled = {"algorithm": {"name": "grpo"}, "rollout": {"questions_per_step": 2, "n": 2, "max_tokens": 6}}
    path = recipe(algorithm=None, stages=[{"algorithm": {"name": "sft"}}, sampled])
    found = modules("run", path, "--dry-run")
    assert "torch" in found and "transformers.models.qwen2.modeling_qwen2" in found
    heavy = {"peft", "datasets", "pandas", "deepspeed", "trl", "vllm", "scipy.stats", "transformers.trainer"}
    assert found & heavy == set()


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_what_reads_no_recipe_imports_no_keys_of_one(arguments: list[str]) -> None:
    assert modules(*arguments) & {"pydantic", "yaml", "posttrain.recipe", "posttrain.algorithms"} == set()


LOADING = """
import gc, sys
from posttrain.cli.options import loading
with loading():
    told = [gc.isenabled()]
    sys.modules["torch"] = sys
told += [gc.isenabled(), gc.get_freeze_count() > 0]
with loading():
    told.append(gc.isenabled())
print(*told)
"""


def test_no_garbage_is_looked_for_while_torch_is_imported_and_only_then() -> None:
    done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False True True True\n", "")
