"""A recipe by its name: the folder recipes/ here, then those that travel with the package, and what is said of no name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from posttrain.errors import RecipeError
from posttrain.recipe.by_name import HERE, SHIPPED, known_recipes, recipe_file
from posttrain.recipe.recipe import load_recipe
from recipes import Command, recipe

REPOSITORY = Path(__file__).parents[2]
NAMES = {path.stem for path in (REPOSITORY / "recipes").glob("*.yaml")}


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
    assert known_recipes().keys() == NAMES and len(NAMES) > 15
    assert load_recipe("quickstart") == load_recipe(REPOSITORY / "recipes/quickstart.yaml")


def test_the_folder_here_stands_before_the_package_and_a_path_before_both(own: Path) -> None:
    assert load_recipe("quickstart").seed == load_recipe("mine-1.5b").seed == 7
    assert recipe_file("gsm8k_cpu") == SHIPPED / "gsm8k_cpu.yaml"
    assert recipe_file("recipes/quickstart.yaml") == recipe_file("quickstart") == HERE / "quickstart.yaml"
    shutil.copy(recipe(seed=8), own / "mine-1.5b")
    assert load_recipe("mine-1.5b").seed == 8
    (own / "gsm8k_cpu").mkdir()  # a folder of that name is no recipe
    assert recipe_file(Path("gsm8k_cpu")) == SHIPPED / "gsm8k_cpu.yaml"


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


def test_data_and_output_are_of_the_folder_here_and_code_of_the_recipes_own(own: Path) -> None:
    schedule = {"name": "function", "path": "rate.py:steps", "options": {}}
    training = {"max_steps": 2, "rows_per_step": 4, "schedule": schedule}
    shutil.copy(recipe(training=training, data={"train": {"path": "data/rows.jsonl"}}), own / "recipes/coded.yaml")
    (own / "recipes/rate.py").write_text("def steps(step, steps):\n    return 1.0\n")
    found = load_recipe("coded")
    assert getattr(found.data.train, "path", None) == "data/rows.jsonl" and found.output_dir == "out"
    assert getattr(found.training.schedule, "path", None) == f"{own}/recipes/rate.py:steps"


def test_recipes_that_travel_name_no_file_that_does_not() -> None:
    for path in SHIPPED.glob("*.yaml"):
        assert ".py:" not in path.read_text(), "code beside a recipe would not travel"


def test_list_says_whose_each_recipe_is(own: Path, posttrain: Command) -> None:
    (own / "recipes/empty.yaml").write_bytes(b"")
    (own / "recipes/latin.yaml").write_bytes(b"# caf\xe9\n")
    code, out, err = posttrain("list", "recipes")
    cells = [[cell.strip() for cell in line.split("│")] for line in out.splitlines() if "│" in line]
    rows = {name: of for _, name, of, *_ in cells}
    of = {**dict.fromkeys(("quickstart", "mine-1.5b", "empty", "latin"), "recipes/"), "gsm8k_cpu": "posttrain"}
    assert (code, err) == (0, "") and rows.keys() - {""} == NAMES | of.keys()
    assert {name: rows[name] for name in of} == of
