"""What mkdocs needs to know of the package: pages that are made of it, and links between pages that name each other."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from posixpath import relpath
from typing import Any, get_args

import typer
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

NAMED = re.compile(r"`docs/([\w/]+\.md)`")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made of the package."""
    for name, made in {"recipes": recipes, "keys": keys, "commands": commands, "metrics": metrics}.items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(made()) + "\n"))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Where a page names another one by its path, a link."""
    known = {file.src_uri for file in files}

    def link(found: re.Match[str]) -> str:
        target = found[1]
        if target not in known or target == page.file.src_uri:
            return found[0]
        folder = page.file.src_uri.rpartition("/")[0]
        return f"[{found[0]}]({relpath(target, folder or '.')})"

    return NAMED.sub(link, markdown)


def recipes() -> Iterator[str]:
    """Every recipe of the package, by its folder: the comment that it begins with."""
    from posttrain.recipe.by_name import group_of, known_recipes

    yield "# Recipes\n"
    yield "They travel with the package: `posttrain run NAME`, `posttrain show NAME`, `posttrain init --from NAME`.\n"
    about = {
        "": "The first one.",
        "start": "On two CPU cores, in minutes: one for each kind of data, and for what else a first run may want.",
        "methods": "Where a method's set-up differs from that of its kind of data; as small.",
        "written": "Where a model writes the data, mostly in rounds, from what `posttrain run demonstrations` leaves.",
        "gpu": "Of papers, with what they need and what their papers report. Never run on a GPU.",
    }
    for group, named in itertools.groupby(known_recipes().items(), key=lambda one: group_of(one[1])):
        yield f"\n## {f'recipes/{group}'.rstrip('/')}\n"
        yield about[group] + "\n"
        yield "| recipe | what it is |"
        yield "|---|---|"
        for name, path in named:
            lines = path.read_text(encoding="utf-8").splitlines()
            head = [line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
            yield f"| `{name}` | {_escaped('. '.join([head[0], ' '.join(head[1:])]))} |"


def keys() -> Iterator[str]:
    """Every key of a recipe: its type, default, and what it is."""
    from posttrain.recipe.recipe import Recipe

    yield "# Keys of a recipe\n"
    yield "Made of the package. `posttrain schema` prints it for editors, `posttrain show NAME` for one algorithm."
    yield "Algorithms, rewards and schedules have keys of their own, which their `name` decides.\n"
    seen = set[type[BaseModel]]()
    yield from _section("a recipe", Recipe, seen)


def _section(title: str, config: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    if config in seen:
        return
    seen.add(config)
    yield f"\n## {title}\n"
    yield " ".join((config.__doc__ or "").split()) + "\n"
    yield "| key | type | default | what it is |"
    yield "|---|---|---|---|"
    below: list[tuple[str, type[BaseModel]]] = []
    for name, field in config.model_fields.items():
        kind = _words(field.annotation)
        default = "needed" if field.is_required() else _default(field.get_default(call_default_factory=True))
        described = " ".join((field.description or "").split())
        yield f"| `{name}` | {_escaped(kind)} | {_escaped(default)} | {_escaped(described)} |"
        below += [(f"{title}: {name}" if title != "a recipe" else name, one) for one in _configs(field.annotation)]
    alike = Counter(name for name, _ in below)
    for name, one in below:
        label = name if alike[name] == 1 else f"{name}, {_name_of(one)}"
        yield from _section(label, one, seen)


def _name_of(config: type[BaseModel]) -> str:
    field = config.model_fields.get("name")
    return str(field.default) if field is not None and isinstance(field.default, str) else config.__name__


def _configs(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _configs(part)


def _words(annotation: Any) -> str:
    if isinstance(annotation, type):
        return "mapping" if issubclass(annotation, BaseModel) else annotation.__name__
    parts = [part for part in get_args(annotation) if part is not type(None)]
    text = str(annotation)
    if text.startswith("typing.Literal"):
        return ", ".join(f"`{part}`" for part in parts)
    if text.startswith("typing.Annotated"):
        return _words(parts[0])
    if text.startswith(("list", "tuple")):
        return f"list of {_words(parts[0])}"
    if text.startswith("dict"):
        return "mapping"
    return " or ".join(dict.fromkeys(_words(part) for part in parts)) or "any"


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "as below"
    return "not set" if value is None else f"`{value!r}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def commands() -> Iterator[str]:
    """Every command with its arguments and options."""
    from posttrain.cli.app import app

    group: Any = typer.main.get_command(app)
    yield "# Commands\n"
    for name, command in group.commands.items():
        yield f"\n## posttrain {name}\n"
        yield " ".join((command.help or "").split()) + "\n"
        yield "| | default | |"
        yield "|---|---|---|"
        for one in command.params:
            words = one.metavar if one.param_type_name == "argument" else ", ".join([*one.opts, *one.secondary_opts])
            default = "" if one.default in (None, [], False) or callable(one.default) else f"`{one.default}`"
            described = _escaped(getattr(one, "help", None) or "")
            yield f"| `{words}` | {default or ('needed' if one.required else '')} | {described} |"


def metrics() -> Iterator[str]:
    """What the names in metrics.jsonl and eval.jsonl mean."""
    from posttrain.execution.report.curves import MEANINGS

    yield "# Metrics\n"
    yield "Those that the report draws, in its order, as regular expressions. `metrics.jsonl` and `eval.jsonl` have more.\n"
    yield "| metric | what it is |"
    yield "|---|---|"
    for pattern, meaning in MEANINGS.items():
        yield f"| `{pattern.replace('|', '&#124;')}` | {_escaped(meaning)} |"
