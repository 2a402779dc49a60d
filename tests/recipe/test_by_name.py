"""A recipe by its name: in recipes/ here, then among those that travel with the package; and what lies beside its file."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from posttrain.algorithms import KIND as ALGORITHMS
from posttrain.errors import RecipeError
from posttrain.recipe.beside import files_beside
from posttrain.recipe.by_name import HERE, SHIPPED, known_recipes, recipe_file
from posttrain.recipe.recipe import load_recipe
from posttrain.rewards.kinds import KIND as REWARDS
from posttrain.train.schedules import KIND as SCHEDULES
from recipes import Command, recipe, write

REPOSITORY = Path(__file__).parents[2]
FILES = sorted((REPOSITORY / "recipes").rglob("*.yaml"))
NAMES = {path.stem for path in FILES}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipes `quickstart`, another one than the package's, and `mine-1.5b`, and with `beside.yaml`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / HERE).mkdir()
    for name in ("recipes/quickstart.yaml", "recipes/mine-1.5b.yaml", "beside.yaml"):
        shutil.copy(recipe(seed=7), tmp_path / name)
    return tmp_path


def test_all_recipes_of_the_project_have_names_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert known_recipes().keys() == NAMES and len(NAMES) > 25
    assert load_recipe("quickstart") == load_recipe(REPOSITORY / "recipes/quickstart.yaml")
    assert load_recipe("pairs") == load_recipe(REPOSITORY / "recipes/start/pairs.yaml")


def test_no_name_of_ours_is_that_of_another_recipe_or_of_what_show_takes() -> None:
    """Several files with one name could not be told apart, and a recipe called `dpo` would hide the algorithm."""
    assert len(FILES) == len(NAMES)
    assert not NAMES & {*ALGORITHMS.members, *REWARDS.members, *SCHEDULES.members}


def test_a_name_in_a_folder_of_recipes_is_found_and_one_of_several_files_is_refused(own: Path, posttrain: Command) -> None:
    for folder in ("a", "b"):
        (own / "recipes" / folder).mkdir()
    shutil.copy(own / "beside.yaml", own / "recipes/b/inner.yaml")
    assert recipe_file("inner") == HERE / "b/inner.yaml" and load_recipe("inner").seed == 7
    shutil.copy(own / "beside.yaml", own / "recipes/a/inner.yaml")
    for command in ("validate", "show"):
        code, out, err = posttrain(command, "inner")
        assert (code, out) == (2, "") and "recipes/a/inner.yaml and recipes/b/inner.yaml both have this name" in err
    assert load_recipe("recipes/a/inner.yaml").seed == 7


def test_the_folder_here_stands_before_the_package_and_a_path_before_both(own: Path) -> None:
    assert load_recipe("quickstart").seed == load_recipe("mine-1.5b").seed == 7
    assert recipe_file("gsm8k_cpu") == SHIPPED / "start/gsm8k_cpu.yaml"
    assert recipe_file("recipes/quickstart.yaml") == recipe_file("quickstart") == HERE / "quickstart.yaml"
    shutil.copy(recipe(seed=8), own / "mine-1.5b")
    assert load_recipe("mine-1.5b").seed == 8
    (own / "gsm8k_cpu").mkdir()  # a folder of that name is no recipe
    assert recipe_file(Path("gsm8k_cpu")) == SHIPPED / "start/gsm8k_cpu.yaml"


@pytest.mark.parametrize("given", ["quickstart.yaml", "recipes/quickstrat", "./quickstart", "beside.yml"])
def test_what_is_written_as_a_path_is_not_looked_up(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as error:
        load_recipe(given)
    assert "recipe of this name" not in str(error.value)


@pytest.mark.parametrize("command", ["run", "validate"])
def test_an_unknown_name_is_exit_2_with_the_nearest_ones(command: str, own: Path, posttrain: Command) -> None:
    for given, hint in {
        "quickstrat": "did you mean quickstart?",
        "mine-1.5": "did you mean mine-1.5b?",
        "zzz": "`posttrain list recipes`",
        "x" * 300: "`posttrain list recipes`",
    }.items():
        code, out, err = posttrain(command, given)
        assert (code, out) == (2, "") and hint in err and "no such file, and no recipe of this name" in err


def test_data_that_are_not_here_are_those_beside_the_recipe(own: Path) -> None:
    for folder in ("", "recipes", "recipes/more"):
        (own / folder).mkdir(exist_ok=True)
        write(own / folder / "rows.jsonl", {"prompt": "1", "completion": folder})
    for name, path, expected in (
        ("here", "rows.jsonl", "rows.jsonl"),
        ("beside", "more/rows.jsonl", f"{own}/recipes/more/rows.jsonl"),
        ("pattern", "more/*.jsonl", f"{own}/recipes/more/*.jsonl"),
        ("several", ["rows.jsonl", "more"], ["rows.jsonl", f"{own}/recipes/more"]),
        ("nowhere", "absent.jsonl", "absent.jsonl"),
    ):
        shutil.copy(recipe(data={"train": {"path": path}}), own / f"recipes/{name}.yaml")
        found = load_recipe(name)
        assert getattr(found.data.train, "path", None) == expected, name
        beside = {} if name in ("here", "nowhere") else {own / "recipes/more/rows.jsonl": "more/rows.jsonl"}
        assert files_beside(found, own / f"recipes/{name}.yaml") == beside, name


def test_output_and_data_of_a_name_are_of_the_folder_here_and_code_of_the_recipes_own(own: Path) -> None:
    schedule = {"name": "function", "path": "rate.py:steps", "options": {}}
    training = {"max_steps": 2, "rows_per_step": 4, "schedule": schedule}
    shutil.copy(recipe(training=training, data={"train": {"path": "data/rows.jsonl"}}), own / "recipes/coded.yaml")
    (own / "recipes/rate.py").write_text("def steps(step, steps):\n    return 1.0\n")
    found = load_recipe("coded")
    assert getattr(found.data.train, "path", None) == "data/rows.jsonl" and found.output_dir == "out"
    assert getattr(found.training.schedule, "path", None) == f"{own}/recipes/rate.py:steps"
    assert files_beside(found, own / "recipes/coded.yaml") == {own / "recipes/rate.py": "rate.py"}


def test_recipes_that_travel_name_no_file_that_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    beside = {name: files_beside(load_recipe(name), path) for name, path in known_recipes().items()}
    assert {*beside["chat_lora"].values()} == {"chat.jsonl", "chat_held_out.jsonl"}
    assert {*beside["reward_function"].values()} == {"reward_function.py"}
    for name, path in known_recipes().items():
        written = re.findall(r"path: \"?([\w/.]+\.(?:py|jsonl))", path.read_text())
        assert {*beside[name].values()} == {one for one in written if not one.startswith("data/")}, "what a study makes"


def test_list_says_whose_each_recipe_is(own: Path, posttrain: Command) -> None:
    (own / "recipes/empty.yaml").write_bytes(b"")
    (own / "recipes/latin.yaml").write_bytes(b"# caf\xe9\n")
    code, out, err = posttrain("list", "recipes")
    cells = [[cell.strip() for cell in line.split("│")] for line in out.splitlines() if "│" in line]
    rows = {name: of for _, name, of, *_ in cells}
    of = {**dict.fromkeys(("quickstart", "mine-1.5b", "empty", "latin"), "recipes"), "gsm8k_cpu": "posttrain/start"}
    assert (code, err) == (0, "") and rows.keys() - {""} == NAMES | of.keys()
    assert {name: rows[name] for name in of} == of
    groups = [of.partition("/")[2] for name, of in rows.items() if of.startswith("posttrain")]
    assert list(dict.fromkeys(groups)) == ["start", "methods", "written", "gpu"]
