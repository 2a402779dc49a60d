"""docs/methods.yaml names methods by their papers; docs/methods.md is made of it, and what it says is there is there.

`python tests/house/test_documents.py` writes the page anew.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cases import Case
from posttrain import build_algorithm
from posttrain.algorithms import ALGORITHMS
from posttrain.cli.commands import COMMANDS
from posttrain.data.transforms import TRANSFORMS
from posttrain.model.merging.kinds import BY_NAME
from posttrain.recipe.recipe import load_recipe
from posttrain.rewards.kinds import REWARDS
from posttrain.settings.adapters.kinds import BY_NAME as ADAPTERS
from posttrain.settings.doors.kinds import name_of
from posttrain.train.optimizers import OPTIMIZERS
from posttrain.train.schedules import SCHEDULES
from posttrain.train.updates import UPDATES
from posttrain.train.updates.trainable import TRAINABLE

ROOT = Path(__file__).parents[2]
LIST, PAGE = "docs/methods.yaml", "docs/methods.md"
HEAD = """# Methods by paper

Generated from `docs/methods.yaml` (`python tests/house/test_documents.py`), and checked: what is named here exists, and so
does the test.

A method is **there** where a test shows its own effect: weights, rows or gradients that are the paper's, and not those of
another method. The last column is that test, and the case of it that is meant. Where it says *effect not tested*, the method
is a **recipe**: keys that are there say it, and nothing here shows what it does. What is **not there** says what it would
take. `docs/algorithms.md` has the parts of each algorithm.
"""
KINDS = ("reward", "transform", "schedule", "optimizer", "merge", "adapter", "update", "trainable", "command", "recipe")
"""Fields of `Here` beside an algorithm, and what is absent."""
THERE, RECIPE, ABSENT = "there", "recipes whose effect is not tested", "not there"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Here(Strict):
    """What the method is in this package: one of these, with what belongs to it."""

    algorithm: str | None = None
    options: dict[str, Any] = {}
    """Of the algorithm, where they make it this method."""
    reward: str | None = None
    transform: str | None = None
    schedule: str | None = None
    merge: str | None = None
    adapter: str | None = None
    """A kind of model.adapter."""
    update: str | None = None
    """A rule of training.update."""
    trainable: str | None = None
    """A rule of training.trainable."""
    command: str | None = None
    """What is given to posttrain."""
    optimizer: str | None = None
    recipe: str | None = None
    """The name of one in recipes/."""
    set: list[str] = []
    """`key.path=value` over that recipe."""
    absent: str | None = None
    """Why it is not there, or what it would take."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Here:
        one_of = [getattr(self, kind) for kind in ("algorithm", *KINDS, "absent")]
        assert sum(one is not None for one in one_of) == 1
        assert self.algorithm is not None or not self.options, "options are of an algorithm"
        assert self.recipe is not None or not self.set, "set is of a recipe"
        return self


class Method(Strict):
    name: str
    paper: str
    """Its title, as it is published."""
    arxiv: str | None = Field(None, pattern=r"^\d{4}\.\d{5}$")
    where: str | None = None
    """What has no arXiv id: where it stands."""
    here: Here
    note: str | None = None
    test: str | None = Field(None, pattern=r"^tests/[\w/]+\.py::test_\w+$")
    case: str | None = None
    """The id of a parameter of that test, where it has some."""

    @model_validator(mode="after")
    def _says_what_proves_it(self) -> Method:
        built = not (self.here.recipe or self.here.absent)
        assert not built or self.test, f"{self.name}: a method is there only if a test shows its effect"
        assert not (self.here.absent and self.test), f"{self.name}: what is not there has no test"
        assert self.case is None or self.test, f"{self.name}: a case is of a test"
        return self

    @property
    def status(self) -> str:
        return ABSENT if self.here.absent else THERE if self.test else RECIPE


class Section(Strict):
    section: str
    methods: list[Method]


@cache
def sections() -> tuple[Section, ...]:
    return tuple(Section.model_validate(one) for one in yaml.safe_load((ROOT / LIST).read_text()))


def methods() -> list[Method]:
    return [method for section in sections() for method in section.methods]


def page() -> str:
    count = Counter(method.status for method in methods())
    lines = [HEAD, f"{len(methods())} methods: " + ", ".join(f"{count[one]} {one}" for one in (THERE, RECIPE, ABSENT)) + "."]
    for section in sections():
        lines += ["", f"## {section.section}", "", "| method | paper | here | shown by |", "|---|---|---|---|"]
        lines += [f"| {one.name} | {_paper(one)} | {_here(one)} | {_shown(one)} |" for one in section.methods]
    return "\n".join(lines) + "\n"


def _paper(method: Method) -> str:
    place = f"[arXiv:{method.arxiv}](https://arxiv.org/abs/{method.arxiv})" if method.arxiv else method.where
    return f"{method.paper}{f' ({place})' if place else ''}"


def _here(method: Method) -> str:
    here = method.here
    if here.absent:
        return f"*{ABSENT}*: {here.absent}"
    options = ", ".join(f"{name}: {_written(value)}" for name, value in here.options.items())
    kinds = {name: getattr(here, name) for name in KINDS}
    said = f"`{here.algorithm}`" if here.algorithm else next(f"{kind} `{name}`" for kind, name in kinds.items() if name)
    said += f" with `{options}`" if options else "".join(f", `{one}`" for one in here.set)
    return f"{said}; {method.note}" if method.note else said


def _written(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False).removesuffix("\n...\n").strip()


def _shown(method: Method) -> str:
    if not method.test:
        return "" if method.here.absent else "*effect not tested*"
    return f"`{method.test}`" + (f", `{method.case}`" if method.case else "")


def build(name: str, options: Mapping[str, Any]) -> Any:
    """The algorithm; where an option has no default, with an example of it."""
    [config] = [one for one in ALGORITHMS if name_of(one) == name]
    counted = {"max_tokens": 9} if "max_tokens" in config.model_fields else {}
    return build_algorithm(name, **{**counted, **options})


@cache
def functions(file: str) -> dict[str, ast.FunctionDef]:
    """The tests of a file by their names."""
    tree = ast.parse((ROOT / file).read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def cases(file: str, test: str) -> dict[str, Any]:
    """The parameters of a test by their ids."""
    module = importlib.import_module(file.removeprefix("tests/").removesuffix(".py").replace("/", "."))
    found: dict[str, Any] = {}
    for mark in (mark for mark in getattr(module, test).pytestmark if mark.name == "parametrize"):
        ids = mark.kwargs.get("ids", str)
        values = [getattr(value, "values", (value,))[0] for value in mark.args[1]]  # of a pytest.param, what it holds
        for name, value in zip(map(ids, values) if callable(ids) else ids, values, strict=True):
            found[str(name)] = value
    return found


def fault_of_case(method: Method, file: str, test: str) -> str | None:
    """A case of the parity tests must be of the algorithm, and have every option that makes it this method."""
    known = cases(file, test)
    if method.case not in known:
        return f"{test} has no case {method.case}"
    case, options = known[method.case], method.here.options.keys()
    if isinstance(case, Case) and (case.name != method.here.algorithm or not options <= case.options.keys()):
        return f"{method.case} is not of {method.here.algorithm} with {', '.join(options)}"
    return None


def fault_of_test(method: Method) -> str | None:
    assert method.test is not None
    file, _, test = method.test.partition("::")
    if not (ROOT / file).is_file() or test not in functions(file):
        return f"there is no {method.test}"
    if method.case is not None:
        return fault_of_case(method, file, test)
    text = (ROOT / file).read_text()
    if (named := names(method)) and not any(re.search(rf"\b{name}\b", text) for name in named):
        return f"{file} does not name {' or '.join(named)}"
    return None


def names(method: Method) -> list[str]:
    """Under which a test knows it: its name, if it is no reward; that of a reward, or of what it builds."""
    if method.here.reward is None:
        kinds = ("algorithm", *(kind for kind in KINDS if kind not in ("reward", "command", "recipe")))
        return [name for kind in kinds if (name := getattr(method.here, kind))]
    return [
        method.here.reward,
        *(one.build.__annotations__["return"] for one in REWARDS if name_of(one) == method.here.reward),
    ]


def fault_of_place(method: Method) -> str | None:
    """Why the method is not there as it is said to be."""
    here = method.here
    try:
        if here.algorithm:
            one, plain = build(here.algorithm, here.options), build(here.algorithm, {})
            if here.options and (repr(one), one.needs) == (repr(plain), plain.needs):
                return f"{here.algorithm} is the same without these options"
        if here.recipe:
            [path] = [path for path in (ROOT / "recipes").rglob("*.yaml") if path.stem == here.recipe]
            load_recipe(path, here.set)
    except ValueError as error:
        return str(error)
    if here.optimizer and here.optimizer not in map(name_of, OPTIMIZERS):
        return f"no optimizer {here.optimizer}"
    if here.schedule and here.schedule not in map(name_of, SCHEDULES):
        return f"no schedule {here.schedule}"
    if here.merge and here.merge not in BY_NAME:
        return f"no merge {here.merge}"
    if here.update and here.update not in map(name_of, UPDATES):
        return f"no update {here.update}"
    if here.trainable and here.trainable not in [rule.model_fields["rule"].default for rule in TRAINABLE]:
        return f"no rule {here.trainable}"
    if here.adapter and here.adapter not in ADAPTERS:
        return f"no adapter {here.adapter}"
    if here.command and here.command.split()[0] not in dict(COMMANDS):
        return f"no command {here.command}"
    if here.transform and here.transform not in map(name_of, TRANSFORMS):
        return f"no transform {here.transform}"
    return f"no reward {here.reward}" if here.reward and here.reward not in map(name_of, REWARDS) else None


def test_every_algorithm_has_a_paper_on_the_page() -> None:
    named = {method.here.algorithm for method in methods()}
    missing = [name_of(config) for config in ALGORITHMS if name_of(config) not in named]
    assert not missing, f"add the papers of {', '.join(missing)} to {LIST}, then run tests/house/test_documents.py"


def test_its_paper_is_the_algorithms_own() -> None:
    """The id that the value bears is that of a method which the page says it is."""
    for config in ALGORITHMS:
        entries = [method for method in methods() if method.here.algorithm == name_of(config)]
        own = re.findall(r"\d{4}\.\d{5}", build(name_of(config), {}).paper) if entries else []
        assert not own or {method.arxiv for method in entries} & set(own), (
            f"{name_of(config)}: {own} is not its paper in {LIST}"
        )


def test_a_method_stands_there_once_and_a_paper_has_one_title() -> None:
    assert [name for name, times in Counter(method.name for method in methods()).items() if times > 1] == []
    papers = {(method.arxiv, method.paper) for method in methods() if method.arxiv}
    assert [title for title, times in Counter(title for _, title in papers).items() if times > 1] == []
    assert [arxiv for arxiv, times in Counter(arxiv for arxiv, _ in papers).items() if times > 1] == []
    assert (
        re.findall(r"\b(?:S\d{3}|[A-Z]-K\d+)\b", (ROOT / LIST).read_text()) == []
    )  # named by papers, never by a list's codes


def test_what_is_named_is_there() -> None:
    assert {method.name: fault for method in methods() if (fault := fault_of_place(method))} == {}


def test_the_tests_are_there_and_are_of_the_method() -> None:
    assert {method.name: fault for method in methods() if method.test and (fault := fault_of_test(method))} == {}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"here": {"algorithm": "dpo", "options": {"gamma": 1.0}}}, "place: dpo: gamma"),
        ({"here": {"algorithm": "dpo", "options": {"beta": 0.1}}}, "place: dpo is the same without these options"),
        ({"here": {"reward": "dpo"}}, "place: no reward dpo"),
        ({"here": {"transform": "dpo"}}, "place: no transform dpo"),
        ({"here": {"recipe": "quickstart", "set": ["seed=-1"]}}, "place: .*seed"),
        ({"test": "tests/parity/test_papers.py::test_nothing"}, "test: there is no tests/parity"),
        ({"case": "dpo-rough"}, "test: test_gradient_is_the_papers has no case dpo-rough"),
        ({"case": "ipo"}, "test: ipo is not of dpo"),
        ({"case": "dpo"}, "test: dpo is not of dpo with label_smoothing"),
        ({"test": "tests/rewards/test_surrogates.py::test_overlong", "case": None}, "test: .* does not name dpo"),
    ],
)  # fmt: skip
def test_what_is_wrong_of_a_method_is_found(change: dict[str, Any], says: str) -> None:
    [smoothed] = [method for method in methods() if method.case == "dpo-smoothed"]
    wrong = smoothed.model_copy(update={**change, **({"here": Here(**change["here"])} if "here" in change else {})})
    found = [
        f"{what}: {fault}" for what, fault in (("place", fault_of_place(wrong)), ("test", fault_of_test(wrong))) if fault
    ]
    assert any(re.match(says, fault) for fault in found), found


@pytest.mark.parametrize(
    "wrong",
    [{"arxiv": "2305.1829"}, {"test": None, "case": None}, {"here": {"absent": "so"}}, {"here": {}}, {"code": 1},
     {"here": {"reward": "format", "options": {"weight": 1}}}],
)  # fmt: skip
def test_an_entry_that_says_nothing_checkable_is_refused(wrong: dict[str, Any]) -> None:
    right = next(method for method in methods() if method.case == "dpo").model_dump(exclude_unset=True)
    assert Method.model_validate(right)
    with pytest.raises(ValueError):
        Method.model_validate({**right, **wrong})
