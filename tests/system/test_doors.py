"""Code from outside: own files beside a recipe, and installed packages; in a folder of its own, with a wheel of this one, in
which the recipes travel.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from system.processes import environment

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
MODEL = {
    "from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1},
    "tokenizer": {"characters": "0123456789+-*=#"},
}
TRAIN = {"task": "chain", "rows": 64}
DOWN = {"name": "function", "path": "own.py:steps_down", "options": {"low": 0.25}}
SFT = {
    "model": MODEL,
    "algorithm": {"name": "function", "path": "own.py:undecided", "options": {"power": 2.0}},
    "data": {"train": TRAIN},
    "training": {"max_steps": 8, "rows_per_step": 8, "learning_rate": 0.01, "save_every": 2, "schedule": DOWN},
    "output_dir": "runs/sft",
}
RL = {
    "model": MODEL,
    "algorithm": {"name": "function", "path": "own.py:plain"},
    "data": {"train": TRAIN},
    "rewards": [{"name": "class", "path": "own.py:Even", "options": {"bonus": 0.5}, "verdict": True}],
    "rollout": {"questions_per_step": 4, "n": 4, "max_tokens": 6},
    "training": {"max_steps": 6, "rows_per_step": 8, "learning_rate": 0.01, "save_every": 2, "schedule": DOWN},
    "output_dir": "runs/rl",
}
KINDS = ("algorithms", "rewards", "schedules", "transforms", "environments")
pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages: the wheel of this one."""
    folder, source = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src/posttrain", "recipes"):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    return install(tmp_path_factory.mktemp("site"), next(folder.glob("posttrain-*.whl")))


def install(site: Path, wheel: Path) -> Path:
    pip("install", "--no-index", "--target", str(site), str(wheel))
    return site


def pip(command: str, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", command, "--quiet", "--no-deps", *words], check=True)


def make_wheel(folder: Path, name: str, code: str, entry_points: str) -> Path:
    """A wheel of one module."""
    path, about = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/entry_points.txt", entry_points)
        wheel.writestr(f"{about}/RECORD", "")
    return path


def furnish(folder: Path) -> Path:
    """Own code and recipes."""
    (folder / "own.py").write_text((HERE / "own_code.py").read_text())
    for name, values in {"sft": SFT, "rl": RL}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return furnish(tmp_path)


class Shell:
    """`python -m posttrain` of a site, from a folder."""

    def __init__(self, site: Path, folder: Path) -> None:
        self.folder, self.environment = folder, environment(PYTHONPATH=str(site), COLUMNS="300")

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "posttrain", *words]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, **pipes)

    def __call__(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err

    def metrics(self, run: str) -> list[dict[str, Any]]:
        lines = (self.folder / run / "metrics.jsonl").read_text().splitlines()
        times = ("seconds", "per_second")
        return [{name: value for name, value in json.loads(line).items() if not name.endswith(times)} for line in lines]

    def interrupt(self, run: str, at: int, *words: str) -> tuple[int, str]:
        """Ends a run by a signal, some steps after it has begun."""
        process, file = self.start(*words), self.folder / run / "metrics.jsonl"
        while process.poll() is None and (not file.is_file() or file.read_text().count("\n") < at):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        return process.wait(120), process.communicate()[1]


@pytest.fixture(scope="module", params=["sft", "rl"])
def whole(request: pytest.FixtureRequest, site: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Any]]:
    """The name of a recipe of own files, and the metrics of its run by one process that nobody breaks off."""
    shell = Shell(site, furnish(tmp_path_factory.mktemp(request.param)))
    code, _, err = shell("run", f"{request.param}.yaml", "--allow-code")
    assert code == 0, err
    return request.param, shell.metrics(f"runs/{request.param}")


def test_the_wheel_is_what_is_tried(site: Path, outside: Path) -> None:
    shell = Shell(site, outside)
    code = "import posttrain; print(posttrain.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=outside, env=shell.environment, capture_output=True, text=True)
    assert Path(done.stdout.strip()).is_relative_to(site)


def test_recipes_travel_in_the_wheel(site: Path, tmp_path: Path) -> None:
    inside, source = site / "posttrain/recipe/shipped", ROOT / "recipes"
    names = {path.name for path in source.rglob("*.yaml")}
    travels = {path.relative_to(source) for path in source.rglob("*.*") if path.is_file() and path.suffix != ".pyc"}
    assert not inside.is_symlink()
    assert {path.relative_to(inside) for path in inside.rglob("*.*") if path.is_file() and path.suffix != ".pyc"} == travels
    shell = Shell(site, tmp_path)
    code, out, err = shell("list", "recipes")
    assert (code, err) == (0, "") and all(f" {Path(name).stem} " in out for name in names)
    code, out, err = shell("validate", "reward_function", "--allow-code")
    assert code == 0 and "is valid" in out, err
    code, out, err = shell("data", "chat_lora", "--set", "model={from_scratch: {}, tokenizer: bytes}")
    assert code == 0 and "library" in out, err
    code, out, err = shell("validate", "quickstrat")
    assert (code, out) == (2, "") and "did you mean quickstart?" in err
    short = ["--set", "stages.0.training.max_steps=2", "--set", "stages.1.training.max_steps=1"]
    code, _, err = shell("run", "quickstart", *short, "--set", "data.eval={}")
    assert code == 0 and (tmp_path / "runs/quickstart/final/model.safetensors").is_file(), err
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_code_that_is_not_allowed_is_exit_2_before_torch_is_imported(site: Path, outside: Path) -> None:
    (outside / "own.py").write_text("raise SystemExit('it ran')")
    watch = (
        "import sys; sys.argv = ['posttrain', *sys.argv[1:]]\n"
        "from posttrain.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    )
    for words in ("run sft.yaml", "run rl.yaml", "run sft.yaml --dry-run", "run sft.yaml --processes 2"):
        command = [sys.executable, "-c", watch, *words.split()]
        done = subprocess.run(command, cwd=outside, env=Shell(site, outside).environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "[]\n") and "--allow-code" in done.stderr and "it ran" not in done.stderr
    assert not (outside / "runs").exists()


def test_own_files_train_and_a_run_that_is_broken_off_goes_on(
    whole: tuple[str, list[Any]], site: Path, outside: Path
) -> None:
    shell, (name, lines) = Shell(site, outside), whole
    steps = len(lines)
    assert [line["learning_rate"] for line in lines] == [0.01 if 2 * step < steps else 0.0025 for step in range(steps)]
    if name == "rl":
        assert all(0.5 <= line["reward/Even"] <= 1.5 for line in lines[::2]), "of each collection"
    code, err = shell.interrupt(f"runs/{name}", 3, "run", f"{name}.yaml", "--allow-code")
    assert code == 75, err
    recipe = yaml.safe_load((outside / f"runs/{name}/recipe.yaml").read_text())
    assert recipe["algorithm"]["path"].startswith(f"{outside}/own.py:"), "absolute, wherever it is read"
    (outside / "own.py").write_text((HERE / "own_code.py").read_text() + "\n# changed\n")
    code, _, err = shell("run", f"{name}.yaml", "--allow-code")
    assert code == 0 and err.count("own.py") == len({part["path"] for part in paths(recipe)}) and "changed since" in err
    assert shell.metrics(f"runs/{name}") == lines


def paths(values: Any) -> list[dict[str, Any]]:
    found = [values] if isinstance(values, dict) and "own.py:" in str(values.get("path")) else []
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return found + [one for value in inner for one in paths(value)]


def test_own_files_train_on_two_ranks(whole: tuple[str, list[Any]], site: Path, outside: Path) -> None:
    shell, (name, alone) = Shell(site, outside), whole
    code, _, err = shell("run", f"{name}.yaml", "--allow-code", "--processes", "2")
    assert code == 0, err
    for one, two in zip(alone, shell.metrics(f"runs/{name}"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3, abs=1e-5)


def test_own_files_and_what_a_package_brings_compare_in_a_study(furnished: Path, outside: Path) -> None:
    rows = {"train": TRAIN, "eval": {"held_out": {"task": "chain", "split": "held_out", "rows": 8}}}
    study = {
        "recipe": {
            "model": MODEL,
            "data": rows,
            "training": {
                "max_steps": 4,
                "rows_per_step": 8,
                "schedule": None,
                "lr_scheduler_type": "constant",
                "save_every": 0,
            },
            "eval": {"samples": 1, "max_tokens": 6},
        },
        "starts": {"short": {"algorithm": SFT["algorithm"], "training": {"learning_rate": 0.01}}},
        "algorithms": {"own": {"algorithm": SFT["algorithm"]}, "theirs": {"algorithm": {"name": "undecided"}}},
        "budget": {"tokens": 400},
        "tuning": {"learning_rates": [0.001], "seeds": [7], "metrics": ["held_out/pass@1"]},
        "seeds": [0, 1],
        "output_dir": "study",
    }
    (outside / "study.yaml").write_text(yaml.safe_dump(study))
    shell = Shell(furnished, outside)
    code, _, err = shell("compare", "study.yaml")
    assert code == 2 and "--allow-code" in err and not (outside / "study").exists()
    code, out, err = shell("compare", "study.yaml", "--allow-code")
    assert code == 0 and "| own |" in out and "| theirs |" in out, err


ENTRY_POINTS = """[posttrain.algorithms]
undecided = theirs:undecided
plain_pg = theirs:plain
[posttrain.rewards]
even = theirs:Even
[posttrain.schedules]
steps_down = theirs:steps_down
[posttrain.transforms]
shifted = theirs:shifted
[posttrain.environments]
countdown = theirs:Countdown
"""


@pytest.fixture(scope="module")
def furnished(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a package that brings one of each kind, and with one that cannot be imported."""
    folder = tmp_path_factory.mktemp("theirs")
    both = tmp_path_factory.mktemp("both")
    broken = "".join(f"[posttrain.{kind}]\nruined = ruined:x\n" for kind in KINDS)
    install(both, make_wheel(folder, "theirs", (HERE / "own_code.py").read_text(), ENTRY_POINTS))
    install(both, make_wheel(folder, "ruined", "import not_there\n", broken))
    return Path(os.pathsep.join([str(both), str(site)]))


def test_what_an_installed_package_brings_is_listed_run_and_gone_on_with(furnished: Path, tmp_path: Path) -> None:
    shell = Shell(furnished, tmp_path)
    brought = dict(zip(KINDS, ("undecided plain_pg", "even", "steps_down", "shifted", "countdown"), strict=True))
    for kind, names in brought.items():
        code, out, err = shell("list", kind)
        assert (code, err) == (0, "")
        assert all(name in out for name in names.split()) and "of theirs" in out
        assert out.count("ruined") >= 1 and "No module named 'not_there'" in out
    values = {
        **RL,
        "algorithm": {"name": "plain_pg"},
        "rewards": [{"name": "even", "options": {"bonus": 0.5}}],
        "training": {**RL["training"], "schedule": {"name": "steps_down", "options": {"low": 0.1}}},
        "data": {"train": TRAIN, "transforms": [{"name": "shifted", "options": {"by": "0+"}}]},
    }
    (tmp_path / "rl.yaml").write_text(yaml.safe_dump(values))
    assert shell("validate", "rl.yaml")[0] == 0
    assert shell("run", "rl.yaml", "--output-dir", "runs/whole")[0] == 0
    code, err = shell.interrupt("runs/rl", 3, "run", "rl.yaml")
    assert code == 75, err
    code, _, err = shell("run", "rl.yaml")
    assert (code, err) == (0, "")
    assert shell.metrics("runs/rl") == shell.metrics("runs/whole")
    assert "reward/even" in shell.metrics("runs/rl")[0]
    code, out, err = shell("data", "rl.yaml")
    assert code == 0 and "<|user|>0+" in out, err


def test_an_environment_of_an_installed_package_is_played_and_checked(furnished: Path, tmp_path: Path) -> None:
    shell = Shell(furnished, tmp_path)
    values = {
        **RL,
        "environment": {"name": "countdown", "options": {"times": 2}, "max_turns": 3, "turn_tokens": 2},
        "data": {"chat_template": False, "train": {"environment": {"rows": 8}}},
        "training": {"max_steps": 2, "learning_rate": 0.01},
    }
    (tmp_path / "play.yaml").write_text(yaml.safe_dump({key: value for key, value in values.items() if key != "rewards"}))
    code, _, err = shell("run", "play.yaml", "--set", "algorithm={name: grpo, kl_coef: 0}")
    assert code == 0, err
    assert all(0 < line["env/turns"] <= 2 and line["env/faults"] == 0 for line in shell.metrics("runs/rl"))
    code, out, err = shell("env", "check", "countdown")
    assert code == 0 and "none failed" in out, err


def test_a_package_that_cannot_be_imported_harms_nobody_else(furnished: Path, tmp_path: Path) -> None:
    shell = Shell(furnished, tmp_path)
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump({**SFT, "algorithm": {"name": "sft"}, "training": {"max_steps": 1}}))
    assert shell("run", "sft.yaml")[0] == 0
    code, _, err = shell("run", "sft.yaml", "--set", "algorithm={name: ruined}")
    assert code == 2 and "ruined" in err and "No module named 'not_there'" in err and "Traceback" not in err
    code, _, err = shell("run", "sft.yaml", "--set", "algorithm={name: undecidedd}")
    assert code == 2 and "undecidedd is unknown" in err
