"""What the documents say is what the code does: their examples run; tables, map and picture are generated.

`python tests/house/test_documents.py` writes what `generated` names anew.
"""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from xml.sax.saxutils import escape

import pytest
import torch
import yaml

from posttrain import Batch, Group, HFEngine, Request, Sampling, policy_gradient_loss
from posttrain.algorithms import example_values
from posttrain.data.sources import Record
from posttrain.data.transforms import KIND as TRANSFORM
from posttrain.estimator.algorithm import table_rows
from posttrain.estimator.trial import try_out
from posttrain.rewards.kinds import REWARDS
from posttrain.settings.doors import code
from posttrain.settings.doors.kinds import Kind, name_of
from posttrain.train.optimizers import KIND as OPTIMIZER
from posttrain.train.schedules import KIND as SCHEDULE
from posttrain.train.updates import UPDATES
from posttrain.train.updates.trainable import TRAINABLE

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # where it is run as a script
from house.test_layout import FLOORS, PACKAGE  # noqa: E402
from house.test_methods import page  # noqa: E402

Command = Callable[..., tuple[int, str, str]]


def blocks(document: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def block(document: str, word: str) -> str:
    [found] = [text for text in blocks(document) if word in text]
    return found


def defined(text: str) -> dict[str, Any]:
    module = types.ModuleType(f"example_{hash(text):x}")
    sys.modules[module.__name__] = module  # pydantic looks up what annotations name
    exec(compile(text, "an example", "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def table() -> str:
    heads = ["term", "mask", "denominator", "advantage", "likelihood", "average", "penalties"]
    lines = [
        "# Algorithms",
        "",
        "Generated from the values (`python tests/house/test_documents.py`). One row for each term:",
        "`grad = mask · (1 / denominator) · advantage · grad pi_theta`, divided by the count that `average` names.",
        "",
        "| algorithm | " + " | ".join(heads) + " | scope | paper |",
        "|" + "---|" * (len(heads) + 3),
    ]
    for algorithm in example_values():
        for i, row in enumerate(table_rows(algorithm)):
            name, scope, paper = (algorithm.name, algorithm.needs.scope, algorithm.paper) if i == 0 else ("", "", "")
            lines.append(f"| {name} | " + " | ".join(row[head] for head in heads) + f" | {scope} | {paper} |")
    return "\n".join(lines) + "\n"


def caption(name: str) -> str:
    """The first sentence of what a folder, or a file, says of itself."""
    path = PACKAGE / name / "__init__.py" if (PACKAGE / name).is_dir() else PACKAGE / f"{name}.py"
    said = ast.get_docstring(ast.parse(path.read_text())) or ""
    return re.split(r"(?<=\.)\s", said.replace("\n", " "), maxsplit=1)[0].rstrip(".")


def there(floor: tuple[str, ...]) -> list[str]:
    return [name for name in floor if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()]


def the_map() -> str:
    """One line for each folder, from the top floor down."""
    return "\n".join(
        f"    {name + '/' if (PACKAGE / name).is_dir() else name + '.py':14}{caption(name)}" for name in _downward()
    )


def rewards() -> str:
    lines = ["| reward | what | reads | verdict |", "|---|---|---|---|"]
    for config in REWARDS:
        reads = ", ".join(f"`{name}`" for name in config.columns) or "no label"
        lines.append(f"| `{name_of(config)}` | {summary(config)} | {reads} | {'can be' if config.says_right else ''} |")
    return "\n".join(lines)


def all_of(kind: Kind[Any]) -> str:
    lines = [f"| {kind.what} | what |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {summary(config)} |" for name, config in kind.members.items())])


def schedules() -> str:
    lines = ["| schedule | what | with `training.budget` |", "|---|---|---|"]
    for name, config in SCHEDULE.members.items():
        lines.append(f"| `{name}` | {summary(config)} | {'yes' if config.by_progress else ''} |")
    return "\n".join(lines)


def optimizers() -> str:
    return all_of(OPTIMIZER)


def listed(rules: Iterable[type[Any]], key: str) -> str:
    lines = [f"| {key} | what |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{rule.model_fields[key].default}` | {summary(rule)} |" for rule in rules)])


def transforms() -> str:
    return all_of(TRANSFORM)


def summary(config: type[Any]) -> str:
    return (config.__doc__ or "").split("\n", 1)[0]


GENERATED: dict[str, tuple[tuple[str, Callable[[], str]], ...]] = {
    "CONTRIBUTING.md": (("map", the_map),),
    "docs/rewards.md": (("rewards", rewards),),
    "docs/architecture.md": (("schedules", schedules), ("optimizers", optimizers)),
    "docs/data.md": (("transforms", transforms),),
    "docs/updates.md": (("trainable", lambda: listed(TRAINABLE, "rule")), ("updates", lambda: listed(UPDATES, "name"))),
}
"""What stands between `<!-- word -->` and `<!-- /word -->` in a document."""


def _downward() -> Iterator[str]:
    for floor in reversed(FLOORS):
        yield from there(floor)


WIDTH, HIGH, GAP, LEFT = 1000, 64, 22, 24


def picture() -> str:
    """The floors, each folder a room with its caption."""
    floors = [there(floor) for floor in reversed(FLOORS)]
    height = len(floors) * (HIGH + GAP) + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, rooms in enumerate(floors):
        top, wide = GAP + number * (HIGH + GAP), (WIDTH - 2 * LEFT - (len(rooms) - 1) * 16) / len(rooms)
        if number:
            arrow = f"M{WIDTH / 2:g} {top - GAP + 2} v{GAP - 8} m-4 -5 l4 6 l4 -6"
            lines.append(f'<path d="{arrow}" fill="none" stroke="#888"/>')
        for place, name in enumerate(rooms):
            left = LEFT + place * (wide + 16)
            lines.append(
                f'<rect x="{left:.0f}" y="{top}" width="{wide:.0f}" height="{HIGH}" rx="6" fill="#f4f6f8" stroke="#456"/>'
            )
            lines.append(f'<text x="{left + 10:.0f}" y="{top + 20}" font-weight="bold">{name}</text>')
            for line, words in enumerate(_wrapped(caption(name), int((wide - 20) / 6.2))[:2]):
                lines.append(f'<text x="{left + 10:.0f}" y="{top + 38 + 16 * line}" fill="#345">{escape(words)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def made_anew(document: str) -> str:
    text = (ROOT / document).read_text()
    for word, make in GENERATED[document]:
        assert text.count(f"<!-- {word} -->") == 1
        inside = rf"<!-- {word} -->.*<!-- /{word} -->"
        between = f"<!-- {word} -->\n{make()}\n<!-- /{word} -->"
        text = re.sub(inside, lambda _, between=between: between, text, flags=re.DOTALL)
    return text


def generated() -> dict[str, str]:
    """Every file that is made of the code, wholly or between marks."""
    whole = {"docs/algorithms.md": table(), "docs/methods.md": page(), "docs/architecture.svg": picture()}
    return whole | {document: made_anew(document) for document in GENERATED}


def test_what_is_generated_is_the_codes() -> None:
    for document, text in generated().items():
        assert (ROOT / document).read_text() == text, document


def test_every_folder_has_its_paragraph() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    for name in _downward():
        assert f"- **`{name}/`**" in text or f"- **`{name}.py`**" in text


def test_the_functions_that_a_row_passes_are_there() -> None:
    trip = (ROOT / "docs/architecture.md").read_text().partition("## The trip of a row")[2].partition("## ")[0]
    named = re.findall(r"`((?:data|train|rewards|model|estimator)\.[\w.]+)`", trip)
    assert len(named) >= 8
    for name in named:
        parts = name.split(".")
        cut = next(i for i in range(len(parts), 0, -1) if (PACKAGE.joinpath(*parts[:i])).with_suffix(".py").is_file() or
                   (PACKAGE.joinpath(*parts[:i])).is_dir())  # fmt: skip
        if cut < len(parts):
            found = code.load(f"posttrain.{'.'.join(parts[:cut])}:{parts[cut]}")
            for attribute in parts[cut + 1 :]:
                found = getattr(found, attribute)


def test_the_readmes_example_runs() -> None:
    names = defined(block("README.md", "import torch"))
    assert names["logits"].grad.abs().sum() > 0
    assert "group_normalised" in repr(names["algorithm"])


def test_the_readmes_own_loss_trains_from_file_to_model(posttrain: Command, tmp_path: Path) -> None:
    """25 lines of loss, and a recipe, as the README has them."""
    loss, [recipe] = block("README.md", "def phi_sft"), blocks("README.md", "yaml")
    assert loss.count("\n") <= 25
    (tmp_path / "my_loss.py").write_text(loss)
    (tmp_path / "mine.yaml").write_text(recipe)
    assert posttrain("run", "mine.yaml")[0] == 2
    done, _, err = posttrain("run", "mine.yaml", "--allow-code")
    output = Path(yaml.safe_load(recipe)["output_dir"])
    assert (done, err) == (0, "") and (output / "final" / "model.safetensors").is_file()


def test_an_algorithm_is_added_in_one_file_as_the_guide_shows() -> None:
    names = defined(block("CONTRIBUTING.md", "class PhiSFT"))
    algorithm = names["PhiSFT"]().build()
    try_out(algorithm)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    logp = (-torch.rand(2, 3, dtype=torch.float64)).requires_grad_()
    policy_gradient_loss(algorithm, logp, Batch(loss_mask=mask)).loss.backward()
    p = logp.detach().exp()
    expected = torch.where(mask, -p * (1 - p) / 3, 0.0)
    assert logp.grad is not None
    assert torch.allclose(logp.grad, expected, rtol=1e-12)
    assert "indecision" in repr(algorithm)


def test_the_guides_reward_schedule_and_transform_are_what_they_say() -> None:
    reward = defined(block("CONTRIBUTING.md", "class QuestionReward"))["QuestionReward"]().build(None)
    group = Group(completions=["a?", "b"], tokens=[[1], [2]], finished=[True, True], columns={"prompt": "p"})
    assert [one.score for one in reward.judge(group)] == [1.0, 0.0]
    factor = defined(block("CONTRIBUTING.md", "class Poly"))["Poly"]().build()
    assert [factor(step, 100, 0) for step in (0, 50, 100)] == [1.0, 0.25, 0.0]
    again = defined(block("CONTRIBUTING.md", "class ReadAgain"))["ReadAgain"](between="|").build(lambda: iter(()))
    assert again(Record("row 1", {"prompt": "a", "topic": "b"}), Random(0)) == [{"prompt": "a|a", "topic": "b"}]


def test_what_one_writes_oneself_works_as_the_page_has_it() -> None:
    algorithm = defined(block("docs/architecture.md", "def careful_grpo"))["careful_grpo"](4, 2, limit=0.5)
    try_out(algorithm)
    group = Group(
        completions=["a", "b"], tokens=[[1], [2] * 9], finished=[True, True], columns={"prompt": "p", "answer": "a"}
    )
    judged = defined(block("docs/architecture.md", "class Short"))["Short"](4).judge(group)
    assert [one.score for one in judged] == [1.0, 0.0]
    sawtooth = defined(block("docs/architecture.md", "def sawtooth"))["sawtooth"]
    assert [sawtooth(step, 100, 0, teeth=2) for step in (0, 25, 50)] == [1.0, 0.5, 1.0]
    engine = defined(block("docs/architecture.md", "class Coin"))["Coin"](64)
    engine.sync(None, 3)
    sampling = Sampling(max_tokens=6, seed=1)
    answers = engine.generate([Request([2, 3], n=4), Request([2], prefix=(5,), n=1)], sampling)
    assert [len(one.tokens) for one in answers[0]] == [6] * 4 and len(answers[1][0].tokens) == 5
    assert answers[0][0].version == 3 and len({tuple(one.tokens) for one in answers[0]}) > 1
    assert engine.generate([Request([2, 3], n=4)], sampling)[0] == answers[0]
    assert {name for name in dir(HFEngine) if not name.startswith("_")} >= {"generate", "sync", "close"}


@pytest.mark.parametrize(
    ("loop", "options", "least"), [("sft", [], 0.9), ("grpo", [], 0.9), ("grpo", ["--algorithm", "dr_grpo"], 0.7)]
)
def test_the_bare_loops_learn(loop: str, options: list[str], least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "recipes" / "loops" / f"{loop}.py"
    assert path.read_text().count("\n") < 120
    monkeypatch.setattr("sys.argv", [str(path), *options])
    assert runpy.run_path(str(path))["main"]() >= least


def test_the_readmes_refusal_is_what_the_command_says(posttrain: Command) -> None:
    shown = re.search(r"\$ posttrain (.*)\n +(error: .*)\n", (ROOT / "README.md").read_text())
    assert shown is not None
    code, _, err = posttrain(*shlex.split(shown[1].replace("recipes/", f"{ROOT}/recipes/")))
    assert (code, err.strip()) == (2, shown[2])


def test_what_never_ran_on_a_gpu_says_so() -> None:
    """In the same line of the README, and on each page that names one; what did run says on which."""
    told = re.compile(r"never run on a GPU|\bH[12]00\b")
    seen = {"reliability.md", "benchmarks.md"}
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if re.search(r"\bGPUs?\b|FSDP2", line)]
    assert lines and all(told.search(line) for line in lines), lines
    pages = [page for page in ROOT.glob("docs/[!L]*.md") if re.search(r"\bGPUs?\b", page.read_text())]
    untold = [page.name for page in pages if "never run on a GPU" not in page.read_text()]
    assert set(untold) == seen and all(told.search((ROOT / "docs" / name).read_text()) for name in seen), untold


if __name__ == "__main__":
    for document, text in generated().items():
        (ROOT / document).write_text(text)
