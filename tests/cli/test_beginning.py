"""A first hour with the command: `init` writes a recipe, `doctor` looks at the machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from posttrain.cli import doctor
from posttrain.recipe import load_recipe
from posttrain.recipe.by_name import known_recipes
from recipes import Command


def test_a_recipe_is_written_with_its_comments_and_can_be_read(posttrain: Command) -> None:
    code, out, err = posttrain("init", "mine")
    text = Path("mine.yaml").read_text()
    assert code == 0 and "posttrain run mine.yaml" in out, err
    assert text.startswith("# ") and load_recipe("mine.yaml").output_dir == "runs/mine"
    code, _, err = posttrain("init", "mine")
    assert code == 2 and "is there already" in err and Path("mine.yaml").read_text() == text
    assert posttrain("init", "a/b")[0] == posttrain("init", "x", "--from", "no_such_recipe")[0] == 2
    code, _, err = posttrain("init", "x", "--from", "nowhere/at_all.yaml")
    assert code == 2 and "there is no such file" in err


def test_every_recipe_can_be_begun_from(posttrain: Command) -> None:
    for name, path in known_recipes().items():
        assert posttrain("init", "--from", name, "--output", f"new/{name}.yaml")[0] == 0
        written, source = Path(f"new/{name}.yaml").read_text().splitlines(), path.read_text().splitlines()
        assert [line for line in written if "output_dir" not in line] == [line for line in source if "output_dir" not in line]
    assert {path.name for path in Path("new").iterdir() if path.suffix != ".yaml"} == {
        "calls.jsonl",
        "calls_held_out.jsonl",
        "chat.jsonl",
        "chat_held_out.jsonl",
        "principles.jsonl",
        "principles_held_out.jsonl",
        "programs.jsonl",
        "reward_function.py",
        "roles.jsonl",
        "roles_held_out.jsonl",
        "tables.jsonl",
        "unpaired.jsonl",
        "weighted.jsonl",
    }


def test_what_a_recipe_reads_beside_it_comes_along(posttrain: Command) -> None:
    code, out, err = posttrain("init", "rewarded", "--from", "reward_function")
    assert code == 0 and "reward_function.py" in out, err
    assert load_recipe("rewarded.yaml").rewards[0].path == f"{Path.cwd()}/reward_function.py:right_and_shown"  # type: ignore
    Path("reward_function.py").write_text("# mine\n")
    code, _, err = posttrain("init", "again", "--from", "reward_function")
    assert code == 2 and "reward_function.py is there already" in err and not Path("again.yaml").exists()
    assert Path("reward_function.py").read_text() == "# mine\n"


def test_a_machine_on_which_all_is_well(posttrain: Command) -> None:
    code, out, _ = posttrain("doctor", "--quick", "--json")
    found = json.loads(out)
    named = {one["what"]: one for one in found["findings"]}
    assert "torch 2." in named["packages"]["found"] and named["this folder"]["found"].startswith(str(Path.cwd()))
    assert found["bad"] == sum(one["level"] == "bad" for one in found["findings"]) and (code == 0) == (not found["bad"])


def looked(name: str) -> list[doctor.Finding]:
    return list(getattr(doctor, name)())


def test_what_is_wrong_is_found_and_what_to_do_is_said(monkeypatch: pytest.MonkeyPatch, posttrain: Command) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "0.0.1" if name == "torch" else "999")
    bad = {one.what: one for one in looked("_versions") if one.level == "bad"}
    assert bad["torch"].found == "0.0.1" and bad["torch"].advice.startswith("It is used with") and "math-verify" in bad
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set())
    assert [one.level for one in looked("_threads")] == ["bad"]
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(total=64 * 10**6, free=10**9))
    assert [(one.level, one.what) for one in looked("_memory") if one.level == "bad"] == [("bad", "/dev/shm")]
    assert {one.level for one in looked("_disk")} == {"note"}
    code, out, err = posttrain("doctor", "--quick")
    assert code == 4 and "findings are bad: " in err and "--ipc=host" in " ".join(out.split())


def test_a_package_that_is_installed_and_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "CHILDREN", {"json": "import json; raise ImportError('operator nms does not exist')", "absent": ""}
    )
    broken, absent = looked("_imports")
    assert broken.level == "bad" and "operator nms does not exist" in broken.found and "pip install" in broken.advice
    assert absent.level == "good" and absent.found == "not installed"


def test_three_steps_of_training_leave_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    [found] = looked("_training")
    assert found.level == "good" and "loss" in found.found and not list(tmp_path.iterdir())


def test_one_thing_of_those_that_are_listed_is_shown(posttrain: Command) -> None:
    assert posttrain("show", "quickstart")[1] == known_recipes()["quickstart"].read_text()
    for name, keys in {"grpo": ["clip_low", "kl_coef"], "rex": ["rex"], "format": ["format", "weight"]}.items():
        code, out, err = posttrain("show", name)
        assert code == 0 and all(key in out for key in keys), err
    code, _, err = posttrain("show", "gprpo")
    assert code == 2 and "did you mean grpo?" in err
