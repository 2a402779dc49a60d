"""The list of algorithms: names, errors, how a value shows itself, and what importing it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest

import posttrain
from cases import CASES, NAMES, Case
from posttrain import build_algorithm
from posttrain.algorithms import ALGORITHMS, KIND, AnyAlgorithm
from posttrain.errors import RecipeError
from posttrain.recipe.traits import Traits

PACKAGE = Path(posttrain.__file__).parent


def test_an_algorithm_has_one_name() -> None:
    assert len(set(NAMES)) == len(NAMES) and list(KIND.members) == [*NAMES, "function"]
    assert [config.model_fields["name"].default for config in ALGORITHMS] == NAMES
    schema = pydantic.TypeAdapter(AnyAlgorithm).json_schema()
    assert schema["discriminator"]["mapping"].keys() == KIND.members.keys()


def test_traits_are_what_the_built_algorithm_needs() -> None:
    for case in CASES:
        config, needs = KIND.members[case.name].model_validate({"name": case.name, **case.options}), case.algorithm.needs
        trains_on = "rollouts" if needs.rollouts else "preferences" if needs.preference else "demonstrations"
        trains_on = "labels" if needs.weight == "label" else "principles" if needs.crossed else trains_on
        assert config.trains_on == trains_on, case
        assert Traits.of_config(config) == Traits.of_value(case.algorithm), case


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_a_run_has_resolved_is_read_again(case: Case) -> None:
    """A run's recipe.yaml has every option, those that are not set too."""
    config = KIND.members[case.name].model_validate({"name": case.name, **case.options})
    assert type(config).model_validate(config.model_dump(mode="json")) == config


def test_every_algorithm_is_in_the_tests_and_bears_its_name() -> None:
    assert {case.name for case in CASES} == set(NAMES)
    assert [case.algorithm.name for case in CASES] == [case.name for case in CASES]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("grop", {}, "Unknown algorithm 'grop'. Did you mean grpo"),
        ("drgrpo", {}, "Did you mean dr_grpo"),
        ("GRPO", {}, "There are: sft, dft, asft"),
        ("grpo", {"clip_hihg": 0.3}, "grpo: clip_hihg: .*clip_high"),
        ("grpo", {"clip_high": -1}, "clip_high: input should be greater than or equal to 0"),
        ("grpo", {"correction": {"cap": 1.0}}, "correction.cap: input should be greater than 1"),
        ("dr_grpo", {}, "max_tokens: is required"),
        ("reinforce", {"updates": 2}, "updates: input should be 1"),
        ("grpo", {"kl": "k1"}, "k1 in the loss has an expected gradient of zero"),
        ("grpo", {"kl": "unbiased", "kl_in": "reward", "kl_coef": 0.1}, "the reward takes k1, and unbiased was asked for"),
        ("grpo", {"off_policy_mask": 0.0}, "off_policy_mask: input should be greater than 0"),
        ("gspo", {"average": "token"}, "average: input should be 'sequence_mean' or 'sequence_sum'"),
        ("sapo", {"temperature_positive": 0.0}, "temperature_positive: input should be greater than 0"),
        ("dppo", {"ratio_cap": 1.0}, "ratio_cap: input should be greater than 1"),
        ("dppo", {"divergence": "js"}, "divergence: input should be 'tv' or 'kl'"),
        ("vespo", {"negative_decay": -1}, "negative_decay: input should be greater than 0"),
        ("gpg", {"updates": 2}, "updates: input should be 1"),
        ("pass_k", {"k": 9}, "k: 9 answers of a group of 8 cannot be had"),
        ("top_entropy", {"keep": 0.0}, "keep: input should be greater than 0"),
        ("clip_cov", {"low": 5.0}, "low: no covariance lies above 5.0 and below high: 5.0"),
        ("grpo_lead", {"middle": 1.5}, "middle: input should be less than or equal to 1"),
        ("reinforce_pp", {"discount": 1.1}, "discount: input should be less than or equal to 1"),
        ("reinforce_pp", {"baseline": "group_mean", "rollouts": 1}, "a group of one has no mean of its own"),
        ("p3o", {"correction": {}}, "correction: p3o weighs tokens by pi/pi_behavior itself"),
        ("p3o", {"old": "sampler"}, "old: p3o weighs tokens by pi/pi_behavior itself"),
        ("f_dpo", {"alpha": 0.3}, "alpha: nothing reads it here; divergence: alpha does"),
        ("f_sft", {"guard": 0.2}, "guard: nothing reads it here; divergence: hellinger or js does"),
        ("a_lol", {"floor": 0.2}, "floor: nothing reads it here; form: r_gold does"),
        ("forget_retain", {"beta": 0.2}, "beta: nothing reads it here; forget: npo does"),
        ("opd", {"clip": False, "clip_low": 0.1}, "clip_low: nothing reads it here; clip: true does"),
        ("opo", {"std_eps": 1e-3}, "std_eps: nothing reads it here; an algorithm that divides by a standard deviation does"),
        ("gpg", {"std_eps": 1e-3}, "std_eps: nothing reads it here; std: true does"),
        ("pass_k", {"kl_in": "reward"}, "kl_in: input should be 'loss'"),
        ("gdpo", {"kl_in": "reward"}, "kl_in: input should be 'loss'"),
        ("grpo_lead", {"kl_in": "reward"}, "kl_in: input should be 'loss'"),
        ("gpg", {"kl_in": "reward"}, "kl_in: input should be 'loss'"),
        ("grpo_lead", {"least": 2.0}, "least: 2 of the easiest question is more than most: 1.5"),
        ("vespo", {"correction": {}}, "correction"),
        ("asymre", {"shift": -0.1}, "shift: input should be greater than or equal to 0"),
        ("clip_cov", {"share": 0.0}, "share: input should be greater than 0"),
        ("discopop", {"tau": 2.0}, "tau: input should be less than or equal to 1"),
        ("dpo", {"label_smoothing": 0.5}, "label_smoothing: input should be less than 0.5"),
    ],
)
def test_a_wrong_name_or_option_is_explained(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        build_algorithm(name, **options)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("config", ALGORITHMS, ids=NAMES)
def test_configs_are_frozen(config: type[pydantic.BaseModel]) -> None:
    made = config.model_construct()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        setattr(made, "name", "another")  # noqa: B010  (pyright knows that it is frozen)


def test_repr_is_the_table() -> None:
    algorithm = build_algorithm("grpo", entropy_coef=0.01, correction={"cap": 3.0})
    assert repr(algorithm).splitlines() == [
        "grpo (arXiv:2402.03300), scope token",
        "  term policy, mask ppo_clip(low=0.2, high=0.2), denominator old, correction truncate(level=token, cap=3), "
        "advantage group_normalised(eps=0.0001), likelihood token, average sequence_mean, penalties -0.01 · entropy",
        "  term 0.04 · kl, mask keep, denominator current, correction none, advantage k3, likelihood token, "
        "average sequence_mean",
    ]


def test_repr_shows_what_is_done_to_rewards_in_turn() -> None:
    assert "advantage in_turn(steps=less_kl(coef=0.1) → leave_one_out)" in repr(build_algorithm("rloo", kl_coef=0.1))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_part_has_a_name(case: Case) -> None:
    assert "<" not in repr(case.algorithm)


def names(tree: ast.AST) -> Iterator[str]:
    """Every string constant that is no docstring, and every identifier."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and id(node) not in docstrings:
                yield node.value
        else:
            values = (value for name, value in ast.iter_fields(node) if name in ("id", "attr", "name", "arg", "asname"))
            yield from (value for value in values if isinstance(value, str))


def test_no_module_outside_algorithms_names_an_algorithm() -> None:
    """What the core does for one algorithm it does for all: it may read `needs`, never a name."""
    named = [
        (str(path.relative_to(PACKAGE)), name)
        for path in PACKAGE.rglob("*.py")
        if "algorithms" not in path.relative_to(PACKAGE).parts
        for name in names(ast.parse(path.read_text()))
        if name.lower() in NAMES
    ]
    assert named == []


def test_the_search_for_names_finds_them() -> None:
    tree = ast.parse('"""dpo"""\nfrom x import sft as gspo\ndef f(dapo): return y.rloo if "grpo" else cispo')
    assert set(NAMES) & set(names(tree)) == {"sft", "gspo", "dapo", "rloo", "grpo", "cispo"}


@pytest.mark.parametrize("module", ["posttrain", "posttrain.algorithms"])
def test_importing_costs_no_torch(module: str) -> None:
    heavy = {"torch", "transformers", "datasets", "trl", "accelerate", "numpy"}
    code = f"import sys, {module}; print(*{heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
