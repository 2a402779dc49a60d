"""What the source must never hold, and the one seam through which TRL comes in."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import transformers
from trl import chat_template_utils

import posttrain
from posttrain.data.trl_templates import training_chat_template
from posttrain.model.load import CHAT_TEMPLATE, make_tokenizer
from posttrain.settings.transformers_arguments import training_argument_names

ROOT = Path(posttrain.__file__).parent
FILES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}
TALK = [{"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))]


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


def test_nothing_runs_or_unpickles_what_it_reads() -> None:
    assert {path: found for path, text in FILES.items() if (found := forbidden(text))} == {}
    assert forbidden("eval('1')") == {"eval"} and forbidden("yaml.load(x)  # TODO") == {"yaml.load(", "TODO"}


def test_trl_comes_in_through_one_module() -> None:
    used = {path: found for path, text in FILES.items() if (found := of_trl(text))}
    assert used == {"data/trl_templates.py": {"trl.chat_template_utils"}}


def test_the_seam_to_trl_has_the_form_that_is_used() -> None:
    first, *others = inspect.signature(chat_template_utils.get_training_chat_template).parameters.values()
    assert first.kind is first.POSITIONAL_OR_KEYWORD
    assert all(p.default is not p.empty for p in others)


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "llama3"])
def test_trl_marks_the_assistants_turns_of_known_templates(name: str) -> None:
    tokenizer: Any = make_tokenizer("bytes")
    tokenizer.chat_template = getattr(chat_template_utils, f"{name}_chat_template")
    marked = training_chat_template(tokenizer)
    assert marked is not None and "generation %}" in marked
    encoded = tokenizer.apply_chat_template(TALK, chat_template=marked, return_dict=True, return_assistant_tokens_mask=True)
    learnt = [token for token, m in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if m]
    assert {"b", "d"} <= set(tokenizer.decode(learnt)) and "user" not in tokenizer.decode(learnt)


@pytest.mark.parametrize("template", ["{{ messages }}", CHAT_TEMPLATE])
def test_there_is_none_for_a_template_that_trl_does_not_know_or_that_needs_none(template: str) -> None:
    tokenizer = make_tokenizer("bytes")
    tokenizer.chat_template = template
    assert training_chat_template(tokenizer) is None


def test_the_names_of_training_arguments_are_those_of_transformers() -> None:
    fields = transformers.TrainingArguments.__dataclass_fields__
    assert training_argument_names() == {name for name, field in fields.items() if field.init}
