"""A YAML file with the line of every key, so that errors can name it; and overrides of its values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from posttrain.errors import RecipeError

Keys = tuple[str, ...]


@dataclass(slots=True)
class YamlSource:
    """The values of a file, the line of each key path, and the overrides that came after."""

    name: str
    values: dict[str, Any]
    lines: dict[Keys, int]
    overridden: dict[Keys, str] = field(default_factory=dict[Keys, str])
    folder: Path | None = None
    """Of the file, to which paths of code are relative."""

    @classmethod
    def read(cls, path: Path) -> YamlSource:
        """Reads with the safe loader.

        Raises:
            RecipeError: there is no such file, it is no YAML, a key stands twice, or it is not a mapping.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise RecipeError(f"{path}: {error.strerror or error}.") from None
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path}: not UTF-8 at byte {error.start}.") from None
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"{path}{_at_line(error)}: not YAML: {_problem(error)}") from None
        except (ValueError, RecursionError) as error:  # a date in month 13, `!!int x`; a value that holds itself
            raise RecipeError(f"{path}: not YAML: {error}") from None
        if not isinstance(values, dict):
            raise RecipeError(f"{path}: a mapping with the keys of a recipe is expected.")
        lines: dict[Keys, int] = {}
        try:
            _lines(str(path), node, (), lines)
        except RecursionError:
            raise RecipeError(f"{path}: a value holds itself.") from None
        return cls(str(path), values, lines, folder=path.parent)

    def override(self, assignment: str) -> None:
        """Sets `key.path=value`.

        Raises:
            RecipeError: it is not of that form, or leads through a value that has no keys.
        """
        path, equals, text = assignment.partition("=")
        keys = tuple(path.strip().split("."))
        if not equals or not all(keys):
            raise RecipeError(f"--set {assignment}: key.path=value is expected.")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise RecipeError(f"--set {assignment}: not YAML: {_problem(error)}") from None
        parent: Any = self.values
        for key in keys[:-1]:
            if isinstance(parent, dict):
                parent.setdefault(key, {})
            parent = parent[_place(parent, key, assignment)]
        parent[_place(parent, keys[-1], assignment)] = value
        self.overridden[keys] = assignment

    def path_of(self, location: Keys) -> Keys:
        """A location of the validator as a path in the YAML: the names of union members fall out, and what a stage has of the
        top level is there.
        """
        node: Any = self.values
        if location[:1] == ("stages",) and len(location) > 2 and location[2] in node:
            own = node["stages"][int(location[1])]
            location = location if location[2] in own else location[2:]
        path: list[str] = []
        for i, part in enumerate(location):
            known = isinstance(node, dict) and (part in (node.get("name"), node.get("rule")) or " " in part)
            member = known and part not in node
            if isinstance(node, dict) and not member and (part in node or i == len(location) - 1):
                path.append(part)
                node = node.get(part)
            elif isinstance(node, list) and part.isdigit():
                path.append(part)
                node = node[int(part)]
        return tuple(path)

    def place(self, path: Keys) -> str:
        """`file:line` of the nearest key that has one, or the override that set it."""
        for keys, assignment in self.overridden.items():
            if path[: len(keys)] == keys:
                return f"--set {assignment}"
        if path not in self.lines:
            below = [assignment for keys, assignment in self.overridden.items() if path and keys[: len(path)] == path]
            if below:
                return f"--set {below[-1]}"
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}" if path else self.name


def _place(parent: Any, key: str, assignment: str) -> str | int:
    if isinstance(parent, dict):
        return key
    if isinstance(parent, list) and key.isdigit() and int(key) < len(parent):
        return int(key)
    what = f"a list of {len(parent)}, counted from 0" if isinstance(parent, list) else "a value, without keys"
    raise RecipeError(f"--set {assignment}: before {key} there is {what}.")


def _at_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if mark is not None else ""


def _problem(error: Exception) -> str:
    return getattr(error, "problem", None) or " ".join(str(error).split())


def _lines(name: str, node: yaml.Node, path: Keys, lines: dict[Keys, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            if here in lines:
                raise RecipeError(f"{name}:{key.start_mark.line + 1}: {'.'.join(here)}: the key stands twice")
            lines[here] = key.start_mark.line + 1
            _lines(name, value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*path, str(i))] = value.start_mark.line + 1
            _lines(name, value, (*path, str(i)), lines)
