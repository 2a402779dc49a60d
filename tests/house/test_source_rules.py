"""What the source must never hold."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import transformers

import posttrain
from posttrain.settings.trainer.arguments import training_argument_names

ROOT = Path(posttrain.__file__).parent
FILES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}


def nodes(text: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(text)))


FORBIDDEN = ("pickle.load", "yaml.load(", "weights_only=False", "0.0.0.0", "shell=True", "os.system(")
UNFINISHED = ("TODO", "FIXME", "XXX", "NotImplementedError")


def forbidden(text: str) -> set[str]:
    called = {node.func.id for node in nodes(text) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return called & {"eval", "exec", "compile", "__import__"} | {word for word in (*FORBIDDEN, *UNFINISHED) if word in text}


def of_trl(text: str) -> set[str]:
    imported = {node.module or "" for node in nodes(text) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes(text) if isinstance(node, ast.Import) for alias in node.names}
    return {name for name in imported if name.split(".")[0] == "trl"}


def rules(text: str) -> set[str]:
    """The names under which something is told: the first argument of `tell`, and of `partial(tell, …)`."""
    calls = [(node.func, node.args) for node in nodes(text) if isinstance(node, ast.Call) and node.args]
    calls += [(args[0], args[1:]) for _, args in calls if len(args) > 1]
    told = [args[0] for called, args in calls if isinstance(called, ast.Name) and called.id == "tell"]
    return {str(name.value) for name in told if isinstance(name, ast.Constant)}


def test_nothing_runs_or_unpickles_what_it_reads() -> None:
    behind_bars = {"rewards/isolated/jail/guest.py": {"exec", "compile"}}
    assert {path: found for path, text in FILES.items() if (found := forbidden(text))} == behind_bars
    assert forbidden("eval('1')") == {"eval"} and forbidden("yaml.load(x)  # TODO") == {"yaml.load(", "TODO"}


def test_the_package_does_not_stand_on_trl() -> None:
    assert {path: found for path, text in FILES.items() if (found := of_trl(text))} == {}
    assert of_trl("from trl.models import x\nimport trl") == {"trl.models", "trl"}


def test_the_names_of_training_arguments_are_those_of_transformers() -> None:
    fields = transformers.TrainingArguments.__dataclass_fields__
    assert training_argument_names() == {name for name, field in fields.items() if field.init}


def test_rules_have_names_of_one_form() -> None:
    told = {name for text in FILES.values() for name in rules(text)}
    assert len(told) > 20 and [name for name in told if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name)] == []
    assert rules('tell("a b", "")\npartial(tell, "c_d")') == {"a b", "c_d"}
